"""J on one step's samples: a fixed function, and its derivatives against brute force."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.core.curvature_oracle import CaptureRequest
from truerisk.engine.step import edit_batch
from truerisk.loss import Hinge, adapt_loss
from truerisk.objective import Objective
from truerisk.objective.loss_curvature import curvature_roots, loss_hessians
from truerisk.objective.step_objective import StepObjective
from truerisk.regularizer import InputGradient

IRIS = ["data=iris", "model.width=4", "model.depth=1", "optimizer=newton", "regularizer=[]"]
MODELS = {
    "mlp": ["model.activation=tanh"],
    "batch norm": ["model.activation=tanh", "model.normalization=batch"],
    "l2, entropy": ["model.activation=tanh", "regularizer=[l2,entropy]"],
    "orthogonality": ["model.activation=tanh", "regularizer=orthogonality"],
    "input gradient": ["model.activation=tanh", "regularizer=input_gradient"],
    "input gradient, batch norm": [
        "model.activation=tanh",
        "model.normalization=batch",
        "regularizer=input_gradient",
    ],
    "input gradient, layer norm": [
        "model.activation=tanh",
        "model.normalization=layer",
        "regularizer=input_gradient",
    ],
    "mixup": ["model.activation=tanh", "regularizer=mixup"],
    "spectral norm": ["model.activation=tanh", "regularizer=spectral_norm"],
    "hinge": ["loss=hinge"],
}


def problem_of(stepping, micro_batches, *given, dtype=torch.float64):
    recipe, step = stepping(*IRIS, "data.batch_size=30", *given, dtype=dtype)
    recipe.model.train()
    (micro,) = micro_batches(recipe, 1)
    micro = [(edit_batch(step.extras.edits, batch), share) for batch, share in micro]
    return step, micro, step.pose_problem(micro)


def of_flat(problem, function):
    """A function of named parameters and the first batch as one of a flat vector."""
    (batch, _), *_ = problem.micro_batches
    buffers = {n: b.clone() for n, b in problem.model.named_buffers()}

    def wrapped(w):
        params = dict(zip(problem.objective.own, problem.split(w)))
        return function({**params, **{n: b.clone() for n, b in buffers.items()}}, batch)

    return wrapped


def columns(product, n):
    return torch.stack([product(e) for e in torch.eye(n, dtype=torch.float64)], dim=1)


def by_differences(gradient_at, w, h=1e-5):
    shifts = h * torch.eye(len(w), dtype=w.dtype)
    return torch.stack([(gradient_at(w + s) - gradient_at(w - s)) / (2 * h) for s in shifts], dim=1)


@pytest.mark.parametrize("given", MODELS.values(), ids=MODELS)
def test_hessian_is_the_derivative_of_the_gradient(stepping, micro_batches, given):
    torch.manual_seed(0)
    _, _, problem = problem_of(stepping, micro_batches, *given)
    w = problem.copy_weights()
    f = of_flat(problem, lambda params, batch: problem.objective(params, batch).objective)

    def gradient_at(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(f(at), at)[0]

    torch.testing.assert_close(problem.gradient(), gradient_at(w))
    hessian = columns(problem.hessian_product, len(w))
    if "spectral_norm" not in given[-1]:  # power iteration goes on with the buffers
        torch.testing.assert_close(hessian, by_differences(gradient_at, w), atol=2e-8, rtol=1e-6)
    torch.testing.assert_close(problem.hessian(), hessian, atol=1e-12, rtol=1e-9)
    assert torch.allclose(hessian, hessian.T, atol=1e-12)


@pytest.mark.parametrize("given", MODELS.values(), ids=MODELS)
def test_gauss_newton_product(stepping, micro_batches, given):
    """Jᵀ diag(∇²l) J / n from the outputs' whole Jacobian, plus the penalties' Hessian."""
    torch.manual_seed(0)
    _, micro, problem = problem_of(stepping, micro_batches, *given)
    w, n = problem.copy_weights(), len(micro[0][0])
    outputs = of_flat(
        problem, lambda params, batch: functional_call(problem.model, params, (batch.x,))
    )
    if "spectral_norm" in given[-1]:
        pytest.skip("its power iteration cannot be mapped")
    jacobian = jacrev(outputs)(w)  # [n, outputs, weights]
    curvature = loss_hessians(lambda f: problem.objective.losses(f, micro[0][0]), outputs(w))
    expected = torch.einsum("nkp,nkl,nlq->pq", jacobian, curvature, jacobian) / n
    found = columns(problem.gauss_newton_product, len(w)) - columns(problem.penalty_product, len(w))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    assert bool(expected.any()) == ("loss=hinge" not in given)


def test_penalty_product_of_l2(stepping, micro_batches):
    given = ["regularizer=l2", "regularizer.l2.coefficient=0.3", "regularizer.l2.rules=[]"]
    _, _, problem = problem_of(stepping, micro_batches, *given)
    v = torch.randn_like(problem.copy_weights())
    torch.testing.assert_close(problem.penalty_product(v), 0.3 * v)


@pytest.mark.parametrize("model", ["lstm", "gru", "transformer"])
def test_every_layer_has_products_in_single_precision(stepping, micro_batches, model):
    """The LSTM of the CPU has no forward-mode derivative in float32."""
    given = ["data=iris", f"model={model}", "optimizer=newton_cg", "regularizer=[]"]
    torch.manual_seed(0)
    recipe, step = stepping(*given, "data.batch_size=16", dtype=torch.float32)
    (micro,) = micro_batches(recipe, 1)
    problem = step.pose_problem(micro)
    u, v = torch.randn(2, len(problem.copy_weights()))
    for product in (problem.hessian_product, problem.gauss_newton_product):
        uv, vu = torch.dot(u, product(v)).item(), torch.dot(v, product(u)).item()
        assert uv == pytest.approx(vu, rel=1e-3, abs=1e-3) and uv != 0
    w, small = problem.copy_weights(), 1e-2 * v / v.norm()
    change = (problem.value(w + small) - problem.value(w - small)).item()
    assert change == pytest.approx(2 * torch.dot(problem.gradient(), small).item(), rel=0.05)


def test_group_norm_has_a_dense_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten()).double()
    objective = Objective(model, lambda out, y: out.square().mean(1))
    batch = Batch(torch.randn(3, 1, 6, dtype=torch.float64), torch.zeros(3))
    problem = StepObjective(objective, [(batch, 1.0)])
    products = columns(problem.hessian_product, len(problem.copy_weights()))
    torch.testing.assert_close(problem.hessian(), products)


NOISY = ["model.normalization=batch", "regularizer=[dropout,spectral_norm]"]


def test_it_is_one_function_under_noise(stepping, micro_batches):
    torch.manual_seed(0)
    _, _, problem = problem_of(stepping, micro_batches, *NOISY)
    w, start = problem.copy_weights(), problem.value()
    far = problem.value(w + 1)
    assert (
        problem.value(w).item() == problem.value(w).item() == pytest.approx(start.item(), abs=1e-15)
    )
    assert problem.value(w + 1) == far != start


@pytest.mark.parametrize("accumulate", [1, 3])
def test_looking_again_leaves_no_trace(stepping, micro_batches, accumulate):
    """The noise and the buffers of one look, as gradient descent would leave them."""
    after = {}
    for optimizer in ("sgd", "newton_cg"):
        given = [*NOISY, f"optimizer={optimizer}", f"step.accumulate={accumulate}"]
        recipe, step = stepping(*IRIS, "data.batch_size=10", *given)
        recipe.model.train()
        torch.manual_seed(0)
        (micro,) = micro_batches(recipe, 1)
        step(micro)
        buffers = {n: b.clone() for n, b in recipe.model.named_buffers()}
        after[optimizer] = buffers, rng.get_state()["torch"], step.state.sums.means()
    (a, noise, sums), (b, noise_2, sums_2) = after.values()
    assert len(a) > 4 and all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(noise, noise_2)
    assert sums == pytest.approx(sums_2, rel=1e-12)


def test_micro_batches_make_the_whole(stepping, micro_batches):
    given = ["data.batch_size=90", "regularizer=[l2,input_gradient]", "model.activation=tanh"]
    _, _, whole = problem_of(stepping, micro_batches, *given)
    recipe, step = stepping(*IRIS, *given[1:], "data.batch_size=full", "step.accumulate=4")
    (micro,) = micro_batches(recipe, 1)
    assert [len(batch) for batch, _ in micro] == [23, 23, 23, 21]
    _, first = stepping(*IRIS, *given[1:], "data.batch_size=full")
    (one,) = micro_batches(recipe, 1)
    several = step.pose_problem(one)
    whole = first.pose_problem(
        [(Batch(*(torch.cat([getattr(b, k) for b, _ in one]) for k in "xy")), 1.0)]
    )
    v = torch.randn_like(whole.copy_weights())
    for name in ("hessian_product", "gauss_newton_product", "penalty_product", "value"):
        argument = v if name != "value" else whole.copy_weights() + v
        found, expected = getattr(several, name)(argument), getattr(whole, name)(argument)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(several.gradient(), whole.gradient())
    torch.testing.assert_close(several.hessian(), whole.hessian())


def test_one_forward_pass_serves_all_products(stepping, micro_batches):
    _, _, problem = problem_of(stepping, micro_batches, "regularizer=l2")
    seen = []
    problem.model.register_forward_pre_hook(lambda *_: seen.append(1))
    v = torch.ones_like(problem.copy_weights())
    (
        problem.gradient(),
        problem.hessian_product(v),
        problem.gauss_newton_product(v),
        problem.hessian(),
        problem.value(),
    )
    assert len(seen) == 1
    problem.value(v)
    assert len(seen) == 2


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(reduction="none"), "classification", 3),
    "weighted": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]), reduction="none"),
        "classification",
        3,
    ),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"), "classification", 3),
    "logistic": (nn.BCEWithLogitsLoss(reduction="none"), "classification", 3),
    "squared": (nn.MSELoss(reduction="none"), "regression", 3),
    "huber": (nn.HuberLoss(reduction="none"), "regression", 3),
    "hinge": (Hinge(), "classification", 3),
}


@pytest.mark.parametrize(("loss", "task", "size"), LOSSES.values(), ids=LOSSES)
def test_roots_of_the_loss_curvature(loss, task, size):
    """Σ vvᵀ is the Hessian exactly, and in the mean over draws."""
    torch.manual_seed(0)
    fitted, draws = adapt_loss(loss, task, size), 4000
    outputs = torch.randn(4, size).repeat_interleave(draws, 0)
    y = (
        outputs.neg()
        if task == "regression"
        else torch.tensor([0, 1, 2, 1]).repeat_interleave(draws)
    )

    def losses(f):
        return fitted(f, y[: draws * 4 : 4 * draws // len(f)])

    once = outputs[::draws]
    expected = loss_hessians(losses, once)
    exact = curvature_roots(fitted, losses, once, exact=True)
    torch.testing.assert_close(torch.einsum("kni,knj->nij", exact, exact), expected)
    (drawn,) = curvature_roots(fitted, losses, outputs, exact=False)
    drawn = drawn.view(4, draws, size)
    mean = torch.einsum("nki,nkj->nij", drawn, drawn) / draws
    assert (mean - expected).abs().max() < 0.08
    assert drawn.mean(1).abs().max() < 0.05
    assert bool(expected.any()) == (not isinstance(loss, Hinge))


def test_captures_are_per_sample_derivatives():
    """Slopes of a linear layer times its inputs are the per-sample gradients of vᵀf."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
    fitted = adapt_loss(nn.MSELoss(reduction="none"), "regression", 2)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5, 2)
    captures = []
    problem = StepObjective(Objective(model, fitted), [(Batch(x, y), 1.0)])
    problem.begin_step(CaptureRequest([model[0]], [model[2].bias], True, captures.append))
    (capture,) = captures
    (a,), (g,) = capture.inputs[model[0]], capture.output_gradients[model[0]]
    assert torch.equal(a, x) and g.shape == (2, 5, 4)
    weight = jacrev(lambda w: functional_call(model, {"0.weight": w}, (x,)))(model[0].weight)
    expected = weight.movedim(
        1, 0
    ).detach()  # [outputs, n, 4, 3]; a root is the unit vector, as 2/K = 1
    torch.testing.assert_close(torch.einsum("kno,ni->knoi", g, a), expected)
    assert capture.gradients[0].shape == (2,) and capture.samples == 5


def normalized_by_hand(h, dims):
    centred = h - h.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + 1e-5).sqrt()


NORMS = {
    "F.instance_norm": (F.instance_norm, (2,)),
    "F.layer_norm": (lambda h: F.layer_norm(h, (4,)), (2,)),
    "F.group_norm": (lambda h: F.group_norm(h, 2), (2,)),
    "F.batch_norm": (lambda h: F.batch_norm(h, None, None, training=True), (0, 2)),
    "torch.instance_norm": (
        lambda h: torch.instance_norm(h, None, None, None, None, True, 0.1, 1e-5, False),
        (2,),
    ),
    "torch.layer_norm": (lambda h: torch.layer_norm(h, (4,), eps=1e-5), (2,)),
    "torch.batch_norm": (
        lambda h: torch.batch_norm(
            *(h, None, None, None, None), training=True, momentum=0.1, eps=1e-5, cudnn_enabled=False
        ),
        (0, 2),
    ),
}


class Normalizing(nn.Module):
    """A network that calls a function where others have a normalization layer."""

    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.norm = nn.Linear(6, 8), nn.Linear(8, 2), norm
        self.double()

    def forward(self, x):
        h = self.norm(self.first(x).reshape(len(x), 2, 4))
        return self.last(torch.tanh(h).reshape(len(x), 8))


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_are_no_layers_have_third_derivatives(name):
    """The Hessian of a penalty on input gradients, against sums, products and roots."""
    norm, dims = NORMS[name]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    batch = Batch(x, torch.tensor([0, 1, 1, 0, 1]))
    penalties = {"input_gradient": InputGradient(1.0).penalty}
    hessians = []
    for called in (norm, lambda h: normalized_by_hand(h, dims)):
        loss = partial(F.cross_entropy, reduction="none")
        objective = Objective(Normalizing(called), loss, penalties)
        hessians.append(StepObjective(objective, [(batch, 1.0)]).hessian())
    torch.testing.assert_close(hessians[0], hessians[1], rtol=1e-10, atol=1e-12)
