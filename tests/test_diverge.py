"""A run that leaves the finite numbers says when and where, and keeps what it has."""

from __future__ import annotations

import math
import re

import pytest
import torch

from truerisk.core.errors import Diverged
from truerisk.model import MLP

RECIPE = ["data=polynomial", "loss=mse", "model=linear", "regularizer=[]", "data.batch_size=25"]
TOO_LARGE = ["optimizer=sgd", "optimizer.lr=80"]


@pytest.fixture(scope="module")
def diverged(run):
    """w ← (1 − 2·lr·E x²)w + …: every step multiplies the weight by some −50."""
    return run(*RECIPE, *TOO_LARGE, "trainer.max_epochs=20")


def test_status_says_when_and_what(diverged):
    assert diverged.status == "diverged"
    """In float32 the weights and outputs can still be written down when their square cannot."""
    assert re.fullmatch(r"step \d+: the loss is not finite", diverged.reason)


def test_the_step_is_the_first_that_is_not_finite(diverged, stepping, micro_batches):
    """The same steps in float32, taken by hand."""
    recipe, step = stepping(*RECIPE, *TOO_LARGE, dtype=torch.float32)
    last = 0
    for last, micro in enumerate(micro_batches(recipe, 100), 1):
        batch = micro[0][0]
        if not step.objective(None, batch).objective.isfinite():
            break
        step(micro)
    assert diverged.reason.startswith(f"step {last}: ")
    assert 6 < last < 20


def test_numbers_up_to_there_are_kept(diverged, series):
    """Six steps an epoch: what was measured before is in the history, finite."""
    steps = int(re.search(r"\d+", diverged.reason).group())
    epochs = (steps - 1) // 6
    assert list(series(diverged, "risk/val").index) == list(range(epochs + 1)) and epochs >= 1
    assert all(map(math.isfinite, series(diverged, "risk/val")))
    assert series(diverged, "risk/val")[1] > 1e6 * series(diverged, "risk/val")[0]


def test_summary_is_that_of_the_best_epoch(diverged, series):
    assert {"risk/train", "risk/val", "risk/gap", "risk/test", "risk/true"} <= set(diverged.summary)
    # what needs no weights was reached after no epoch
    of_weights = [n for n in diverged.summary if "bayes" not in n and "constant" not in n]
    assert {diverged.summary[name].epoch for name in of_weights} == {0}
    risk = diverged.summary["risk/val"].value
    assert risk == pytest.approx(series(diverged, "risk/val")[0], rel=1e-6)
    test = diverged.summary["risk/test"]
    assert test.value < 10 and 0 < test.stderr < 1
    assert series(diverged, "risk/test").iloc[-1] == test.value
    assert max(p.abs().max() for p in diverged.model.parameters()) < 10


def test_weights_that_overflow_in_the_last_step_of_an_epoch_are_named(run):
    """Here the measurement is the first to see them."""
    given = ["optimizer=gd", "optimizer.lr=3e38", "data.source.coefficients=[9,9]"]
    result = run(*RECIPE, "data.batch_size=full", *given)
    assert result.status == "diverged"
    assert re.fullmatch(r"step \d+: weight 'output\.(weight|bias)' is not finite", result.reason)


def test_a_nan_inside_a_run_names_its_layer(run, monkeypatch, series):
    """From the seventh training batch on, the first hidden layer of three puts out a nan."""
    forward, seen = MLP.forward, []

    def broken(model, x):
        if model.training:
            seen.append(None)
        if len(seen) == 7:
            model.hidden[1].register_forward_hook(lambda m, args, out: out * torch.nan)
        return forward(model, x)

    monkeypatch.setattr(MLP, "forward", broken)
    result = run("data=iris", "model.width=8", "model.depth=3", "data.batch_size=30")
    assert result.status == "diverged"
    assert result.reason == "step 7: the output of layer 'hidden.1' is not finite"
    assert list(series(result, "risk/val").index) == [0, 1, 2]


STEP = ["data=iris", "model.width=8", "regularizer=[]", "optimizer=sgd"]


def spoiled(grad):
    return grad.index_fill(0, torch.tensor([1]), torch.inf)


@pytest.mark.parametrize(
    "name", ["hidden.0.linear.weight", "hidden.1.linear.bias", "output.weight"]
)
def test_an_infinite_gradient_names_its_parameter(stepping, micro_batches, name):
    recipe, step = stepping(*STEP, "step.clip.norm=1")
    first, second = micro_batches(recipe, 2)
    step(first)
    before = {n: p.detach().clone() for n, p in recipe.model.named_parameters()}
    recipe.model.get_parameter(name).register_hook(spoiled)
    with pytest.raises(Diverged) as caught:
        step(second)
    assert (caught.value.step, caught.value.what) == (2, f"the gradient of '{name}'")
    assert str(caught.value) == f"step 2: the gradient of '{name}' is not finite"
    for n, p in recipe.model.named_parameters():
        assert torch.equal(p, before[n])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_weight_is_named_before_what_follows_from_it(stepping, micro_batches, value):
    recipe, step = stepping(*STEP)
    with torch.no_grad():
        recipe.model.hidden[1].linear.weight[0, 0] = value
    (micro,) = micro_batches(recipe, 1)
    with pytest.raises(Diverged, match=r"step 1: weight 'hidden\.1\.linear\.weight'"):
        step(micro)


def test_a_penalty_that_is_not_finite_ends_the_run(stepping, micro_batches):
    recipe, step = stepping(*STEP, "regularizer=l2")
    step.objective.penalties["l2"] = lambda forward: forward.outputs.sum() * 0 + torch.inf
    (micro,) = micro_batches(recipe, 1)
    with pytest.raises(Diverged, match="step 1: "):
        step(micro)


class Backtracking(torch.optim.SGD):
    """Halves a first step that is far too long until J has fallen."""

    @torch.no_grad()
    def step(self, closure):
        start, (group,) = closure(), self.param_groups
        here = [p.clone() for p in group["params"]]
        slopes = [p.grad.clone() for p in group["params"]]
        for halvings in range(2000):
            for p, w, g in zip(group["params"], here, slopes, strict=True):
                p.copy_(w - group["lr"] / 2**halvings * g)
            if closure() < start:
                return start


def test_a_line_search_may_overflow_and_come_back(stepping, micro_batches):
    given = ["optimizer=custom", f"optimizer._target_={__name__}.Backtracking"]
    recipe, step = stepping(*RECIPE, *given, "+optimizer.lr=1e200")
    first, second = micro_batches(recipe, 2)
    before = step.objective(None, first[0][0]).objective.item()
    step(first)
    assert step.objective(None, first[0][0]).objective.item() < before
    assert step.state.sums.means()["batch/loss"] == pytest.approx(before)
    step(second)


class Breaking(torch.optim.SGD):
    """A search that looks as far away as it is told, and breaks off."""

    def step(self, closure):
        closure()
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p += self.param_groups[0]["lr"]
        closure()
        raise IndexError("bracket")


@pytest.mark.parametrize(("far", "error"), [("1e200", Diverged), ("1.0", IndexError)])
def test_a_search_that_breaks_off(stepping, micro_batches, far, error):
    """Where J was not finite that is why; elsewhere the error is the optimizer's own."""
    given = ["optimizer=custom", f"optimizer._target_={__name__}.Breaking", f"+optimizer.lr={far}"]
    recipe, step = stepping(*RECIPE, *given)
    with pytest.raises(error, match="step 1: " if error is Diverged else "bracket"):
        step(next(micro_batches(recipe, 1)))


def test_a_norm_that_overflows_ends_the_run(stepping, micro_batches):
    """Gradients of 1e200 are finite, but have no norm in float64 to clip them by."""
    recipe, step = stepping(*STEP)
    recipe.model.output.bias.register_hook(lambda grad: torch.full_like(grad, 1e200))
    (micro,) = micro_batches(recipe, 1)
    with pytest.raises(Diverged, match="step 1: "):
        step(micro)
