"""K-FAC: its blocks against the Gauss–Newton matrix, its running means, and how it keeps steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.loss import adapt_loss
from truerisk.objective import Objective
from truerisk.objective.step_objective import StepObjective
from truerisk.optimizer import KFAC
from truerisk.optimizer.kfac import minimize_quadratic
from truerisk.optimizer.kronecker import (
    KroneckerBlock,
    extract_patches,
    invert_factors,
    partition_parameters,
)

EXACT = {"fisher": "exact", "adapt_every": None, "decay": 0.0}
IRIS = ["data=iris", "model.width=6", "model.activation=tanh", "regularizer=[]", "optimizer=kfac"]
FULL = ["optimizer.control=search", "optimizer.lr=1", "data.batch_size=full"]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def problem_of(model, x, outputs=2):
    """The squared loss of a model in double precision."""
    torch.manual_seed(1)
    objective = Objective(model, adapt_loss(nn.MSELoss(reduction="none"), "regression", outputs))
    return StepObjective(objective, [(Batch(x, draw(len(x), outputs)), 1.0)])


def gauss_newton(problem):
    size = len(problem.copy_weights())
    return torch.stack(
        [problem.gauss_newton_product(e) for e in torch.eye(size, dtype=torch.float64)], dim=1
    )


def looked(model, x, **numbers):
    """An optimizer after one step, and the Gauss–Newton matrix where it began, by parameter."""
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = KFAC(model.parameters(), **(EXACT | numbers))
    optimizer.step(problem_of(model, x))
    model.load_state_dict(start, strict=False)
    matrix, blocks, offset = gauss_newton(problem_of(model, x)), {}, 0
    for name, p in model.named_parameters():
        blocks[name] = slice(offset, offset + p.numel())
        offset += p.numel()
    return optimizer, matrix, blocks


def kronecker(optimizer, layer):
    """A ⊗ G in the order of the layer's parameters, weight before bias."""
    state = optimizer.state[layer.weight]
    a, g = state["input"], state["output"]
    a = torch.diag(a) if a.ndim == 1 else a
    whole = torch.einsum("op,ij->oipj", g, a)
    size = layer.weight[0].numel() if not isinstance(layer, nn.Embedding) else len(layer.weight)
    weight = whole[:, :size, :, :size].reshape(len(g) * size, -1)
    return weight, whole[:, size:, :, size:].reshape(-1, len(g)) if len(a) > size else None


# --- the blocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_blocks_of_a_deep_linear_network_are_those_of_gauss_newton(bias):
    """With squared loss the derivatives are the same for all samples, and E[aaᵀ ⊗ ggᵀ] = A ⊗ G."""
    torch.manual_seed(0)
    sizes = [(3, 5), (5, 4), (4, 2)]
    model = nn.Sequential(*(nn.Linear(*size, bias=bias) for size in sizes)).double()
    optimizer, matrix, blocks = looked(model, draw(20, 3))
    for i, layer in enumerate(model):
        weight, own = kronecker(optimizer, layer)
        part = blocks[f"{i}.weight"]
        torch.testing.assert_close(weight, matrix[part, part], rtol=0, atol=1e-12)
        if bias:
            part = blocks[f"{i}.bias"]
            torch.testing.assert_close(own, matrix[part, part], rtol=0, atol=1e-12)


def test_the_preconditioned_gradient_is_that_of_the_damped_blocks():
    """Δ = (A + π√λ I)⁻¹ ⊗ (G + √λ/π I)⁻¹ ∇J, on weight and bias at once."""
    torch.manual_seed(0)
    model, x, lam = nn.Linear(3, 2).double(), draw(20, 3), 0.3
    before = torch.cat([model.weight.detach(), model.bias.detach()[:, None]], 1)
    numbers = {"lr": 1e-3, "momentum": 0.0, "kl_clip": 1e9, "damping": lam}
    optimizer = KFAC(model.parameters(), **(EXACT | numbers))
    problem = problem_of(model, x)
    optimizer.step(problem)
    moved = torch.cat([model.weight.detach(), model.bias.detach()[:, None]], 1) - before
    weight, bias = problem.split(problem.gradient())
    state = optimizer.state[model.weight]
    a, g = state["input"], state["output"]
    pi = math.sqrt((a.trace() / 4) / (g.trace() / 2))
    left = torch.linalg.inv(g + math.sqrt(lam) / pi * torch.eye(2, dtype=g.dtype))
    right = torch.linalg.inv(a + math.sqrt(lam) * pi * torch.eye(4, dtype=a.dtype))
    expected = -1e-3 * left @ torch.cat([weight, bias[:, None]], 1) @ right
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=0)


CONVOLUTIONS = {
    "1-D": (nn.Conv1d(2, 3, 4, stride=2, padding=1), (2, 11)),
    "1-D, dilated": (nn.Conv1d(2, 3, 3, dilation=2), (2, 11)),
    "2-D": (nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 6, 5)),
    "2-D, circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 6, 5)),
    "2-D, same": (nn.Conv2d(2, 3, 3, padding="same"), (2, 6, 5)),
    "2-D, dilated": (nn.Conv2d(2, 3, 2, dilation=(2, 1)), (2, 6, 5)),
}


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_a_dense_layer_on_patches(layer, shape):
    torch.manual_seed(0)
    layer, x = layer.double(), draw(4, *shape)
    outputs = extract_patches(layer, x) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(outputs.transpose(1, 2), layer(x).flatten(2))


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_factors_of_a_convolution(layer, shape):
    """A sums āāᵀ over positions and G averages ggᵀ (Grosse & Martens 2016, eq. 27 and 28)."""
    torch.manual_seed(0)
    layer, x = layer.double(), draw(4, *shape)
    slopes = draw(2, *layer(x).shape)
    a, g = KroneckerBlock(layer, lambda p: True).factors([x], [slopes])
    seen, positions = extract_patches(layer, x), layer(x)[0, 0].numel()
    A, G = torch.zeros_like(a), torch.zeros_like(g)
    for n in range(4):
        for t in range(positions):
            one = torch.cat([seen[n, t], torch.ones(1)])
            A += torch.outer(one, one) / 4
            for k in range(2):
                slope = slopes[k, n].flatten(1)[:, t]
                G += torch.outer(slope, slope) / (4 * positions)
    torch.testing.assert_close(a, A)
    torch.testing.assert_close(g, G)


class Last(nn.Module):
    """A layer before a linear output, on the flattened features."""

    def __init__(self, layer, features):
        super().__init__()
        self.layer, self.output = layer, nn.Linear(features, 2)

    def forward(self, x):
        return self.output(self.layer(x).flatten(1))


def test_the_block_of_a_convolution_at_one_position_is_exact():
    for layer, shape in ((nn.Conv1d(2, 3, 4), (2, 4)), (nn.Conv2d(1, 3, (2, 3)), (1, 2, 3))):
        torch.manual_seed(0)
        model = Last(layer, 3).double()
        optimizer, matrix, blocks = looked(model, draw(10, *shape))
        weight, bias = kronecker(optimizer, model.layer)
        for found, name in ((weight, "layer.weight"), (bias, "layer.bias")):
            part = matrix[blocks[name], blocks[name]]
            torch.testing.assert_close(found, part, rtol=0, atol=1e-12)


def test_the_block_of_an_embedding_is_exact():
    """A is the share of each word; its block is ordered word by word."""
    torch.manual_seed(0)
    model = Last(nn.Embedding(6, 3), 3).double()
    words = torch.tensor([0, 1, 1, 2, 5, 5, 5, 0])
    optimizer, matrix, blocks = looked(model, words)
    state = optimizer.state[model.layer.weight]
    counts = torch.tensor([2.0, 2.0, 1.0, 0.0, 0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(state["input"], counts / 8)
    expected = torch.einsum("ij,op->iojp", torch.diag(state["input"]), state["output"])
    part = matrix[blocks["layer.weight"], blocks["layer.weight"]]
    torch.testing.assert_close(expected.reshape(18, 18), part, rtol=0, atol=1e-12)


NORMS = {
    "layer": (lambda: nn.LayerNorm(4), (4,)),
    "batch": (lambda: nn.BatchNorm1d(4), (4,)),
    "group": (lambda: nn.GroupNorm(2, 4), (4, 3)),
    "layer, sequence": (lambda: nn.LayerNorm(4), (3, 4)),
    "batch, image": (lambda: nn.BatchNorm2d(4), (4, 3, 2)),
}


@pytest.mark.parametrize(("make", "shape"), NORMS.values(), ids=NORMS)
def test_norm_layers_have_the_diagonal_of_their_block(make, shape):
    torch.manual_seed(0)
    model = Last(make(), math.prod(shape)).double()
    nn.init.normal_(model.layer.weight)
    optimizer, matrix, blocks = looked(model, draw(12, *shape))
    for name, p in (("layer.weight", model.layer.weight), ("layer.bias", model.layer.bias)):
        part = matrix.diagonal()[blocks[name]]
        torch.testing.assert_close(optimizer.state[p]["diagonal"], part, rtol=0, atol=1e-12)


def test_all_others_have_a_diagonal_without_bias():
    """A grouped convolution: the mean of n random estimates is within four standard errors."""
    torch.manual_seed(0)
    model, x, n = Last(nn.Conv1d(2, 2, 3, groups=2), 2).double(), draw(8, 2, 3), 400
    assert model.layer.weight in set(partition_parameters(model, list(model.parameters())).others)
    estimates = []
    for _ in range(n):
        optimizer, problem = KFAC(model.parameters(), lr=1e-30, **EXACT), problem_of(model, x)
        torch.manual_seed(len(estimates))
        optimizer.step(problem)
        estimates.append(optimizer.state[model.layer.weight]["diagonal"].flatten())
    estimates = torch.stack(estimates)
    expected = gauss_newton(problem_of(model, x)).diagonal()[: estimates.shape[1]]
    error = (estimates.mean(0) - expected).abs()
    assert (error < 4 * estimates.std(0) / math.sqrt(n)).all()


def test_sampled_factors_are_exact_in_the_mean():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), draw(200, 3)
    exact, *_ = looked(model, x)
    sums = torch.zeros(4, 4, dtype=torch.float64)
    for seed in range(50):
        optimizer, problem = KFAC(model.parameters(), lr=1e-30, adapt_every=None), None
        problem = problem_of(model, x)
        torch.manual_seed(seed)
        optimizer.step(problem)
        sums += optimizer.state[model[0].weight]["output"]
    expected = exact.state[model[0].weight]["output"]
    assert (sums / 50 - expected).norm() < 0.05 * expected.norm()


# --- its memory -----------------------------------------------------------------------------------


def held(steps, **numbers):
    """Factors after each of some steps that do not move the weights, on samples of their own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer, seen = KFAC(model.parameters(), lr=1e-30, **(EXACT | numbers)), []
    state = optimizer.state[model[0].weight]
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.step(problem_of(model, draw(10, 3)))
        seen.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()})
    return seen


def test_factors_are_running_means():
    """The k-th keeps min(1 − 1/k, decay) of the old one."""
    own = [factors["input"] for factors in held(6)]
    mean = own[0]
    for k, factors in enumerate(held(6, decay=0.6), 1):
        keep = min(1 - 1 / k, 0.6)
        mean = keep * mean + (1 - keep) * own[k - 1]
        torch.testing.assert_close(factors["input"], mean, rtol=1e-12, atol=0)


def test_eigenvalues_that_rounding_made_negative_count_as_zero():
    a = torch.diag(torch.tensor([4.0, -1e-3]))
    found, _ = invert_factors(a, torch.eye(2), 1e-12)
    shift = math.sqrt((4 - 1e-3) / 2) * 1e-6
    torch.testing.assert_close(found.diagonal(), torch.tensor([0.25, 1 / shift]))


def changes(seen, name):
    return [
        i for i in range(len(seen)) if i == 0 or not torch.equal(seen[i][name], seen[i - 1][name])
    ]


def test_factors_and_inverses_are_renewed_now_and_then():
    seen = held(13, factor_every=2, inverse_every=5)
    assert changes(seen, "input") == [0, 2, 4, 6, 8, 10, 12]
    assert changes(seen, "input_inverse") == [0, 2, 5, 10]  # in step 1 from the same factors
    a, g = invert_factors(seen[10]["input"], seen[10]["output"], 0.01)
    torch.testing.assert_close(seen[12]["input_inverse"], a)
    torch.testing.assert_close(seen[12]["output_inverse"], g)


# --- its steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1e-3, 1e-1])
def test_clipping_bounds_the_change_of_the_prediction(kappa):
    """For one layer and squared loss the mean of ‖f(w + p) − f(w)‖² is pᵀBp, at most κ."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), draw(50, 3)
    before = model(x).detach()
    numbers = {"lr": 1.0, "momentum": 0.0, "kl_clip": kappa, "damping": 1e-6}
    KFAC(model.parameters(), **(EXACT | numbers)).step(problem_of(model, x))
    change = (model(x) - before).square().sum(1).mean().item()
    assert change <= kappa and change == pytest.approx(kappa, rel=0.01)


def test_the_clipped_step(stepping, micro_batches):
    """−lr·ν·Δ with ν = min(1, √(κ / (lr² ∇JᵀΔ))), plus μ times the last one."""
    given = [*IRIS, "data.batch_size=30", "optimizer.adapt_every=null", "optimizer.momentum=0.7"]
    recipe, step = stepping(*given)
    optimizer, seen = step.optimizer, []
    find = optimizer._precondition_gradient

    def finding(problem, layout, gradient):
        direction = find(problem, layout, gradient)
        seen.append((gradient.clone(), direction.clone()))
        return direction

    optimizer._precondition_gradient, last = finding, 0.0
    for micro in micro_batches(recipe, 5):
        before = torch.cat([p.detach().flatten() for p in step.params])
        step(micro)
        moved = torch.cat([p.detach().flatten() for p in step.params]) - before
        g, direction = seen[-1]
        nu = min(1.0, math.sqrt(1e-3 / (0.1**2 * -(g @ direction).item())))
        last = 0.1 * nu * direction + 0.7 * last
        torch.testing.assert_close(moved, last, rtol=1e-10, atol=1e-14)
    assert nu < 1


def test_the_searched_step_is_the_models_minimum():
    """Over both ways at once, as the equations of the 2 × 2 system have it."""
    torch.manual_seed(0)
    m = draw(6, 6)
    B, g, ways = m @ m.T, draw(6), [draw(6), draw(6)]
    p, bent = minimize_quadratic(g, ways, [B @ way for way in ways], 0.3)
    torch.testing.assert_close(bent, B @ p)
    slope = g + B @ p + 0.3 * p
    for way in ways:
        assert abs(slope @ way) < 1e-12
    alone, _ = minimize_quadratic(g, [ways[0], 2 * ways[0]], [B @ ways[0], 2 * B @ ways[0]], 0.3)
    torch.testing.assert_close(alone, minimize_quadratic(g, ways[:1], [B @ ways[0]], 0.3)[0])


@pytest.mark.parametrize(
    ("control", "damping", "grows"),
    [("clip", 1e-8, True), ("clip", 100.0, False), ("search", 100.0, False)],
)
def test_damping_adapts(control, damping, grows, stepping, micro_batches):
    """By (19/20)^T every T steps, up where the model promises too much and down where it holds."""
    given = [*IRIS, "data.batch_size=full", f"optimizer.control={control}", "optimizer.decay=0"]
    given += [f"optimizer.damping={damping}", "optimizer.adapt_every=3", "optimizer.lr=1"]
    recipe, step = stepping(*given)
    seen = []
    for micro in micro_batches(recipe, 7):
        step(micro)
        seen.append(step.optimizer.group["damping"] / damping)
    rate = (20 / 19) ** 3 if grows else (19 / 20) ** 3
    assert seen == pytest.approx([1, 1, rate, rate, rate, rate**2, rate**2])


def test_a_penalty_adds_to_the_damping(stepping, micro_batches):
    """L2 with coefficient c on all weights: its Hessian is cI."""
    inverted = []
    for given in (
        ["regularizer=l2", "regularizer.l2.coefficient=0.3", "regularizer.l2.rules=[]"],
        ["regularizer=[]", "optimizer.damping=0.35"],
    ):
        more = ["optimizer.fisher=exact", "optimizer.damping=0.05", *given]
        recipe, step = stepping(*IRIS, *more, "data.batch_size=full")
        (micro,) = micro_batches(recipe, 1)
        step(micro)
        inverted.append([s["input_inverse"] for s in step.optimizer.state.values() if "input" in s])
    for mine, theirs in zip(*inverted, strict=True):
        torch.testing.assert_close(mine, theirs)


class Reader(nn.Module):
    """A layer whose weight is read without a call."""

    def __init__(self):
        super().__init__()
        self.read = nn.Linear(3, 2)

    def forward(self, x):
        return functional.linear(x, self.read.weight, self.read.bias)


def test_layers_that_are_never_called_are_refused():
    torch.manual_seed(0)
    model = Reader().double()
    with pytest.raises(ConfigError, match=r"Linear.*never is.*newton_cg"):
        KFAC(model.parameters(), **EXACT).step(problem_of(model, draw(5, 3)))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"control": "clipp"}, "did you mean 'clip'"),
        ({"fisher": "empirical"}, r"optimizer\.fisher"),
        ({"momentum": 1.5}, r"optimizer\.momentum"),
        ({"kl_clip": 0.0}, r"optimizer\.kl_clip"),
        ({"damping": 0.0}, r"optimizer\.damping"),
        ({"decay": -0.1}, r"optimizer\.decay"),
        ({"adapt_every": 1.5}, r"optimizer\.adapt_every"),
        ({"factor_every": 0}, r"optimizer\.factor_every"),
        ({"inverse_every": 0}, r"optimizer\.inverse_every"),
    ],
)
def test_numbers_out_of_range(numbers, message):
    with pytest.raises(ConfigError, match=message):
        KFAC([torch.zeros(1)], **numbers)
