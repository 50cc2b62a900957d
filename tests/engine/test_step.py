"""One step: how often it looks, at what, and what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from truerisk.core import rng
from truerisk.engine.step import FusedUpdate
from truerisk.model import MLP

TINY = ["data=iris", "model.width=6", "model.activation=tanh", "regularizer=[]"]
NOISY = [*TINY, "regularizer=dropout", "model.normalization=batch"]


class Watch:
    """The inputs, dropout masks and batch means that a model's training forward passes see."""

    def __init__(self, model):
        self.inputs, self.masks = [], []
        model.register_forward_pre_hook(self._input)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.register_forward_hook(self._mask)

    def _input(self, model, args):
        if model.training:
            self.inputs.append(args[0].clone())

    def _mask(self, module, args, output):
        if module.training:
            self.masks.append(output == 0)  # tanh is nowhere exactly 0


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "looks"),
    [("sgd", 1, 1), ("adam", 1, 1), ("sgd", 3, 3), ("sam", 1, 2), ("sam", 3, 6)],
)
def test_forward_passes_of_a_step(stepping, micro_batches, optimizer, accumulate, looks):
    given = [*NOISY, f"optimizer={optimizer}", f"step.accumulate={accumulate}"]
    recipe, step = stepping(*given, "data.batch_size=10")
    watch = Watch(recipe.model.train())
    steps = list(micro_batches(recipe, 2))
    torch.manual_seed(0)
    for micro in steps:
        step(micro)
    assert len(watch.inputs) == 2 * looks
    fed = [batch.x for micro in steps for _ in range(looks // accumulate) for batch, _ in micro]
    assert all(map(torch.equal, watch.inputs, fed))
    assert [m.num_batches_tracked.item() for m in norms(recipe.model)] == [2 * accumulate] * 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lbfgs_looks_as_often_as_it_asks_always_at_the_same(stepping, micro_batches, accumulate):
    given = [*NOISY, "optimizer=lbfgs", f"step.accumulate={accumulate}"]
    recipe, step = stepping(*given)
    watch = Watch(recipe.model.train())
    torch.manual_seed(0)
    (micro,) = micro_batches(recipe, 1)
    step(micro)
    (state,) = step.optimizer.state.values()
    looks = state["func_evals"]
    assert looks > 5
    assert len(watch.inputs) == looks * accumulate
    fed = [batch.x for _ in range(looks) for batch, _ in micro]
    assert all(map(torch.equal, watch.inputs, fed))
    assert [m.num_batches_tracked.item() for m in norms(recipe.model)] == [accumulate] * 2


@pytest.mark.parametrize("optimizer", ["sam", "lbfgs"])
def test_dropout_masks_stay_within_a_step_and_change_between_steps(
    stepping, micro_batches, optimizer
):
    recipe, step = stepping(*NOISY, f"optimizer={optimizer}", "data.batch_size=90")
    watch, masks = Watch(recipe.model.train()), []
    torch.manual_seed(0)
    for micro in micro_batches(recipe, 2):
        step(micro)
        masks.append(watch.masks[:2])  # of the two hidden layers
        pairs = list(zip(watch.masks[::2], watch.masks[1::2], strict=True))
        assert len(pairs) >= 2
        for first, second in pairs:
            assert torch.equal(first, masks[-1][0]) and torch.equal(second, masks[-1][1])
        watch.masks.clear()
    assert not torch.equal(masks[0][0], masks[1][0])
    assert 0.3 < masks[0][0].double().mean() < 0.7


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "lbfgs"])
def test_running_statistics_move_once_a_step(stepping, micro_batches, optimizer):
    """By momentum 0.1 towards the batch's mean at the weights before the step."""
    given = [*TINY, "model.normalization=batch", f"optimizer={optimizer}", "data.batch_size=90"]
    recipe, step = stepping(*given)
    model = recipe.model.train()
    (micro,) = micro_batches(recipe, 1)
    x = micro[0][0].x
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    hidden = x @ first.weight.detach().T
    step(micro)
    norm = norms(model)[0]
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * hidden.var(0))


@pytest.mark.parametrize(
    ("optimizer", "looks"), [("sgd", 1), ("sam", 2), ("lbfgs", None)], ids=["sgd", "sam", "lbfgs"]
)
def test_forward_passes_of_a_run(run, monkeypatch, optimizer, looks):
    """Lightning's own closures once made SAM look half as often as it should."""
    seen, asked, forward = [], [], MLP.forward

    def counted(self, x):
        if self.training:
            seen.append(x.clone())
        return forward(self, x)

    def asking(self, closure):
        def noted():
            asked.append(None)
            return closure()

        return search(self, noted)

    search = torch.optim.LBFGS.step
    monkeypatch.setattr(MLP, "forward", counted)
    monkeypatch.setattr(torch.optim.LBFGS, "step", asking)
    given = [] if optimizer == "lbfgs" else ["data.batch_size=40"]  # 40, 40 and 10 samples
    run(*TINY, f"optimizer={optimizer}", "trainer.max_epochs=3", *given)
    if optimizer == "lbfgs":
        assert len(seen) == len(asked) > 6
        assert all(torch.equal(x, seen[0]) for x in seen)
    else:
        assert [len(x) for x in seen[::looks]] == [40, 40, 10] * 3
        assert len(seen) == 9 * looks
        assert all(map(torch.equal, seen[::looks], seen[looks - 1 :: looks]))


def test_clipping_by_norm(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=sgd", "step.clip.norm=0.01")
    (micro,) = micro_batches(recipe, 1)
    batch = micro[0][0]
    loss = cross_entropy(recipe.model(batch.x), batch.y)
    grads = torch.autograd.grad(loss, step.params)
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    assert step.gradient(micro).item() == pytest.approx(loss.item(), rel=1e-14)
    for p, g in zip(step.params, grads, strict=True):
        torch.testing.assert_close(p.grad, g * 0.01 / norm, rtol=1e-4, atol=0)
    assert step.state.sums.means()["grad_norm"] == pytest.approx(norm.item(), rel=1e-14)


def test_a_gradient_below_the_bound_is_left_alone(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=sgd", "step.clip.norm=100")
    free, plain = stepping(*TINY, "optimizer=sgd")
    for micro in micro_batches(recipe, 3):
        step(micro)
        plain(micro)
    assert all(map(torch.equal, recipe.model.parameters(), free.model.parameters()))


def test_clipping_by_value(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=sgd", "step.clip.value=0.003")
    (micro,) = micro_batches(recipe, 1)
    batch = micro[0][0]
    grads = torch.autograd.grad(cross_entropy(recipe.model(batch.x), batch.y), step.params)
    step.gradient(micro)
    assert max(g.abs().max() for g in grads) > 0.01
    for p, g in zip(step.params, grads, strict=True):
        torch.testing.assert_close(p.grad, g.clamp(-0.003, 0.003), rtol=0, atol=1e-16)


def test_projection_without_averaging(stepping, micro_batches):
    given = [*TINY, "optimizer=sgd", "regularizer=max_norm", "regularizer.max_norm.bound=0.2"]
    recipe, step = stepping(*given)
    assert recipe.model.output.weight.norm(dim=1).max() > 0.3
    (micro,) = micro_batches(recipe, 1)
    step(micro)
    assert recipe.model.output.weight.norm(dim=1).max() <= 0.2 + 1e-12


def test_the_order_within_a_step(stepping, micro_batches):
    """Project what the optimizer made of the weights, then average what is left."""
    given = [*TINY, "optimizer=sgd", "optimizer.lr=5", "regularizer=[max_norm,ema]"]
    recipe, step = stepping(*given, "regularizer.max_norm.bound=0.2", "regularizer.ema.decay=0.5")
    ema, weights = recipe.regularizers["ema"], []
    for micro in micro_batches(recipe, 2):
        step(micro)
        weights.append(recipe.model.output.weight.detach().clone())
        assert recipe.model.output.weight.norm(dim=1).max() <= 0.2 + 1e-12
    averaged = ema.averaged()["output.weight"]
    decay = (1 + 2) / (10 + 2)
    torch.testing.assert_close(averaged, decay * weights[0] + (1 - decay) * weights[1])


def test_edits_act_once_on_every_micro_batch(stepping, micro_batches):
    """Mixup draws one partner and one share a step, however often the optimizer looks."""
    given = [*TINY, "optimizer=sam", "regularizer=mixup", "data.batch_size=30"]
    recipe, step = stepping(*given)
    watch = Watch(recipe.model.train())
    torch.manual_seed(0)
    (micro,) = micro_batches(recipe, 1)
    step(micro)
    first, second = watch.inputs
    assert torch.equal(first, second) and not torch.equal(first, micro[0][0].x)


def test_means_weigh_losses_by_samples(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=sgd", "optimizer.lr=0", "data.batch_size=40")
    assert step.state.sums.means() == {}
    for micro in micro_batches(recipe, 3):  # one epoch of 40, 40 and 10
        step(micro)
    train = recipe.data.train
    whole = cross_entropy(recipe.model(train.x), train.y).item()
    assert step.state.sums.means()["batch/loss"] == pytest.approx(whole, rel=1e-13)


def test_state_restores_the_step(stepping, micro_batches):
    given = [*TINY, "optimizer=sgd", "scheduler=cosine", "data.batch_size=40"]
    recipe, step = stepping(*given, horizon=9)
    _, other = stepping(*given, horizon=9)
    for micro in micro_batches(recipe, 4):
        step(micro)
    other.state.load_state_dict(step.state.state_dict())
    other.schedule.load_state_dict(step.schedule.state_dict())
    assert other.state.step == 4
    assert other.state.sums.means() == step.state.sums.means()
    assert other.optimizer.param_groups[0]["lr"] == step.optimizer.param_groups[0]["lr"] < 0.1


def test_looking_twice_draws_the_noise_of_one_look(stepping, micro_batches):
    """So that the masks of step t do not depend on how often the optimizer looked before."""
    after = {}
    for optimizer in ("sgd", "sam"):
        recipe, step = stepping(*NOISY, f"optimizer={optimizer}", "data.batch_size=30")
        recipe.model.train()
        torch.manual_seed(0)
        (micro,) = micro_batches(recipe, 1)
        step(micro)
        after[optimizer] = rng.get_state()["torch"]
    assert torch.equal(after["sgd"], after["sam"])


def test_hooks_of_the_optimizer_are_called(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=adam")
    before, after = [], []
    for micro in micro_batches(recipe, 2):
        step(micro)
    handle = step.optimizer.register_step_pre_hook(lambda *_: before.append(step.state.step))
    step.optimizer.register_step_post_hook(lambda *_: after.append(step.state.step))
    for micro in micro_batches(recipe, 2):
        step(micro)
    handle.remove()
    for micro in micro_batches(recipe, 1):
        step(micro)
    assert (before, after) == ([2, 3], [2, 3, 4])


def test_a_profiler_sees_the_optimizer_step(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=adam")
    with torch.profiler.profile() as profile:
        for micro in micro_batches(recipe, 3):
            step(micro)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["Optimizer.step#Adam.step"] == 3


def test_a_step_put_on_the_optimizer_is_taken(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=adam")
    taken = []
    step.optimizer.step = lambda: taken.append(step.state.step)
    for micro in micro_batches(recipe, 2):
        step(micro)
    assert taken == [0, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("optimizer", ["adam", "muon", "prodigy"])
def test_weights_move_as_by_the_optimizer_itself(stepping, micro_batches, optimizer):
    """The same bits, and no scheduler that warns of a step it has not seen."""
    recipe, step = stepping(*TINY, f"optimizer={optimizer}", "scheduler=cosine")
    other_recipe, other = stepping(*TINY, f"optimizer={optimizer}", "scheduler=cosine")
    other.optimizer.register_step_pre_hook(lambda *_: None)  # so that it goes all the way
    for micro in micro_batches(recipe, 5):
        step(micro)
        other(micro)
    for p, q in zip(recipe.model.parameters(), other_recipe.model.parameters(), strict=True):
        assert torch.equal(p, q)


ADAM, ADAMW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD
NESTEROV = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


def twins(kind, **options):
    """Two networks with the same weights, and an optimizer of two groups for each."""
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        model = MLP((4,), 3, width=5, depth=2, normalization="batch")
        first, *others = model.parameters()
        groups = [{"params": [first], "lr": 0.05}, {"params": others}]
        made.append((model, kind(groups, lr=0.02, **options)))
    return made


def give_gradients(pair, number, but=None):
    """The same gradients for both, as a pass leaves them; none for the parameter ``but``."""
    for model, _ in pair:
        draw = torch.Generator().manual_seed(number)
        for k, p in enumerate(model.parameters()):
            grad = torch.randn(p.shape, generator=draw)
            p.grad = None if k == but else grad


def agree(pair):
    """Whether weights and states are the same to the bit."""
    (ours, mine), (theirs, other) = pair
    weights = all(map(torch.equal, ours.parameters(), theirs.parameters()))
    states = [o.state_dict()["state"] for o in (mine, other)]
    flat = [[v for k in s for v in s[k].values() if v is not None] for s in states]
    return weights and len(flat[0]) == len(flat[1]) and all(map(torch.equal, *flat))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ADAM, {}),
        (ADAM, {"amsgrad": True, "weight_decay": 0.1}),
        (ADAM, {"maximize": True, "eps": 1e-3}),
        (ADAMW, {"betas": (0.5, 0.9)}),
        (SGD, {"momentum": 0.0, "weight_decay": 0.1}),
        (SGD, NESTEROV),
        (SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
    ],
)
def test_the_short_way_to_a_fused_kernel_is_torchs_own_step(kind, options):
    pair = twins(kind, fused=True, **options)
    (_, mine), (_, other) = pair
    fused, taken = FusedUpdate(mine), []
    for number in range(8):
        give_gradients(pair, number, but=1 if number == 3 else None)
        if number == 5:
            for optimizer in (mine, other):
                optimizer.param_groups[1]["lr"] *= 0.5
        if number == 6:
            for optimizer in (mine, other):
                optimizer.load_state_dict(optimizer.state_dict())
        if number == 7:
            for _, optimizer in pair:
                optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
                optimizer.param_groups[-1]["params"][0].grad = torch.ones(2)
        taken.append(fused.take())
        if not taken[-1]:
            mine.step()
        other.step()
        assert agree(pair), number
    # the first makes the states, the fourth lacks a gradient, the last one's group has no states
    plain = kind is SGD and not options["momentum"]
    assert taken == [plain, True, True, False, True, True, True, plain]


@pytest.mark.parametrize("kind", [ADAM, ADAMW])
def test_counts_of_steps_are_counted_once_however_they_lie(kind):
    (_, mine), _ = pair = twins(kind, fused=True)
    fused = FusedUpdate(mine)
    for number in range(5):
        give_gradients(pair, number)
        if number == 3:  # somebody gives a weight another count, which its neighbours do not have
            for optimizer in (mine, pair[1][1]):
                states = list(optimizer.state.values())
                states[-1]["step"] = torch.tensor(7.0)
        if not fused.take():
            mine.step()
        pair[1][1].step()
        counts = [state["step"].item() for state in mine.state.values()]
        assert counts == [number + 1.0] * (len(counts) - 1) + [
            number + (5.0 if number > 2 else 1.0)
        ]
        assert agree(pair)
    joined = {state["step"].untyped_storage().data_ptr() for state in mine.state.values()}
    assert len(joined) == 3  # two groups, and the one that was given


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ADAM, {"fused": False}),
        (ADAM, {"foreach": True}),
        (ADAM, {"fused": True, "lr": torch.tensor(0.02)}),
        (torch.optim.Adagrad, {"fused": True}),
        (type("Own", (ADAM,), {}), {"fused": True}),
    ],
)
def test_what_a_fused_kernel_does_not_do_is_left_to_the_optimizer(kind, options):
    model = MLP((4,), 3, width=5, depth=1)
    optimizer = kind(model.parameters(), **{"lr": 0.02, **options})
    fused = FusedUpdate(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    for number in range(3):
        give_gradients([(model, optimizer)], number)
        assert not fused.take()
        assert all(map(torch.equal, before, model.parameters()))
        optimizer.step()
        before = [p.detach().clone() for p in model.parameters()]


def test_mixed_types_are_left_to_the_optimizer():
    params = [torch.nn.Parameter(torch.ones(2, dtype=t)) for t in (torch.float32, torch.float64)]
    optimizer = ADAM(params, fused=True)
    fused = FusedUpdate(optimizer)
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        assert not fused.take()
        optimizer.step()


def test_a_step_in_the_place_of_torchs_is_called(stepping, micro_batches, monkeypatch):
    calls, step = [], ADAM.step
    monkeypatch.setattr(ADAM, "step", lambda *args: calls.append(args) or step(*args))
    recipe, step_of_run = stepping(*TINY, "optimizer=adam", "data.batch_size=30")
    for micro in micro_batches(recipe, 3):
        step_of_run(micro)
    assert len(calls) == 3


def test_a_run_takes_the_short_way(stepping, micro_batches):
    recipe, step = stepping(*TINY, "optimizer=adam", "data.batch_size=30")
    taken = []
    take = step.fused.take
    step.fused.take = lambda: taken.append(take()) or taken[-1]
    for micro in micro_batches(recipe, 3):
        step(micro)
    assert taken == [True, True]  # the first one is tried by itself
