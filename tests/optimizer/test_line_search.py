"""Line searches: their inequalities along real runs, closed forms, and what they do when lost."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.optimizer import (
    GDBacktracking,
    GDExact,
    GDWolfe,
    LBFGSBacktracking,
    SGDArmijo,
)
from truerisk.optimizer.line_search import ClosureLine, StrongWolfe

ALL = [GDBacktracking, GDExact, GDWolfe, SGDArmijo, LBFGSBacktracking]
NAMES = ["gd_backtracking", "gd_exact", "gd_wolfe", "sgd_armijo", "lbfgs_backtracking"]
NOISY = ["data=iris", "model.width=6", "model.activation=tanh", "regularizer=[l2,dropout]"]


def closure_of(function, *params, looks=None):
    """A closure as `Step` makes it; ``looks`` counts those with a gradient and those without."""

    def closure(gradient=True):
        if looks is not None:
            looks.append(gradient)
        if not gradient:
            with torch.no_grad():
                return function(*params)
        for p in params:
            p.grad = None
        value = function(*params)
        value.backward()
        return value

    return closure


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64, requires_grad=True)


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


class Watched:
    """Steps of a real run: J and ∇J before and after each, under the step's own dropout mask."""

    def __init__(self, step):
        self.params, self.group = step.params, step.optimizer.param_groups[0]
        self.steps, self.take = [], step.optimizer.step
        step.optimizer.step = self

    def look(self, closure):
        value = closure().item()
        return value, flat(self.params), flat(p.grad for p in self.params)

    def __call__(self, closure):
        before = self.look(closure)
        self.take(closure)
        self.steps.append((before, self.look(closure), self.group["step_length"], closure))


def watched(name, stepping, micro_batches, steps=40, *overrides):
    batch = "30" if name == "sgd_armijo" else "full"
    given = [*NOISY, f"optimizer={name}", f"data.batch_size={batch}", *overrides]
    recipe, step = stepping(*given)
    recipe.model.train()
    torch.manual_seed(0)
    watch = Watched(step)
    for micro in micro_batches(recipe, steps):
        step(micro)
    return watch


@pytest.mark.parametrize("name", NAMES)
def test_every_step_decreases_enough(name, stepping, micro_batches):
    """Armijo: J(w + Δw) ≤ J(w) + α ∇Jᵀ Δw."""
    watch = watched(name, stepping, micro_batches)
    alpha = watch.group.get("alpha", watch.group.get("c1", 0.0))
    for (value, w, g), (after, there, _), taken, _ in watch.steps:
        assert taken > 0
        assert after <= value + alpha * g @ (there - w)
        if name != "lbfgs_backtracking":
            torch.testing.assert_close(there, w - taken * g, rtol=0, atol=1e-15)
    assert watch.steps[-1][1][0] < watch.steps[0][0][0]


def test_backtracking_takes_the_first_step_that_will_do(stepping, micro_batches):
    watch = watched("gd_backtracking", stepping, micro_batches, 40, "optimizer.lr=64")
    shortened = 0
    for (value, w, g), _, taken, closure in watch.steps:
        halvings = math.log2(64 / taken)
        assert halvings == int(halvings)
        for longer in (taken * 2**k for k in range(1, int(halvings) + 1)):
            move(watch.params, w - longer * g)
            assert closure(gradient=False).item() > value - 0.3 * longer * g @ g
            shortened += 1
    assert shortened > 40


@torch.no_grad()
def move(params, w):
    for p, part in zip(params, w.split([p.numel() for p in params]), strict=True):
        p.copy_(part.view_as(p))


def test_strong_wolfe_conditions_hold(stepping, micro_batches):
    watch = watched("gd_wolfe", stepping, micro_batches)
    c1, c2 = watch.group["c1"], watch.group["c2"]
    for (value, _, g), (after, _, there), taken, _ in watch.steps:
        assert after <= value - c1 * taken * g @ g
        assert abs(g @ there) <= c2 * g @ g


# --- exact line search ------------------------------------------------------------------------


def spd(n, seed=0):
    torch.manual_seed(seed)
    m = torch.randn(n, n, dtype=torch.float64)
    return m @ m.T + torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("lr", [1e-3, 1.0, 30.0])
def test_exact_is_the_closed_form_on_a_quadratic(lr):
    A, b = spd(6), torch.arange(6, dtype=torch.float64)
    w, looks = torch.randn(6, dtype=torch.float64, requires_grad=True), []
    closure = closure_of(lambda w: 0.5 * w @ A @ w - b @ w + 7, w, looks=looks)
    optimizer = GDExact([w], lr=lr)
    for _ in range(10):
        g = (A @ w - b).detach()
        optimizer.step(closure)
        assert optimizer.group["step_length"] == pytest.approx(
            (g @ g / (g @ A @ g)).item(), rel=1e-9
        )
    assert looks == [True, True, False] * 10


@pytest.mark.parametrize("gamma", [2.0, 10.0, 100.0])
def test_boyds_bowl_contracts_as_it_should(gamma):
    """½(x² + γy²) from (γ, 1): J shrinks by ((γ − 1)/(γ + 1))² in every step (Boyd, §9.3.2)."""
    w = vector(gamma, 1.0)
    closure = closure_of(lambda w: 0.5 * (w[0] ** 2 + gamma * w[1] ** 2), w)
    optimizer, rate = GDExact([w]), (gamma - 1) / (gamma + 1)
    values = [optimizer.step(closure).item() for _ in range(30)]
    for before, after in itertools.pairwise(values):
        assert after / before == pytest.approx(rate**2, abs=1e-9)
    end = torch.tensor([gamma * rate**30, (-rate) ** 30], dtype=torch.float64)
    torch.testing.assert_close(w.detach(), end, rtol=1e-7, atol=0)


def test_exact_finds_a_minimum_where_there_is_no_parabola():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randint(2, (40,)).double()
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    closure = closure_of(
        lambda w: nn.functional.binary_cross_entropy_with_logits(x @ w, y) + (w**4).sum(), w
    )
    optimizer = GDExact([w], lr=0.01, tolerance=1e-6)
    for _ in range(5):
        closure()
        before, value = w.grad.clone(), closure(gradient=False).item()
        optimizer.step(closure)
        assert closure().item() < value
        assert abs(w.grad @ before) < 1e-4 * before @ before


def test_exact_is_not_fooled_by_a_cubic():
    """A slope of zero at both ends of t³ − t² would make a parabola of it."""
    w = vector(0.0)
    closure = closure_of(lambda w: (w**3 - w**2 - w).sum(), w)
    GDExact([w], lr=0.1, tolerance=1e-8, max_step=2.0).step(closure)
    assert w.item() == pytest.approx(1.0, abs=1e-6)


def test_a_line_that_falls_for_ever_is_left_at_the_longest_step():
    for kind in (GDExact, GDWolfe):
        w = vector(1.0)
        optimizer = kind([w], max_step=100.0)
        optimizer.step(closure_of(lambda w: -(w**3).sum(), w))
        assert optimizer.group["step_length"] == 100.0, kind
        assert w.item() == 301.0


# --- strong Wolfe -----------------------------------------------------------------------------

HARD = {
    "flat far out": (lambda t: -t / (t**2 + 2), 0.1),
    "flat at first": (lambda t: (t + 0.1) ** 5 - 2 * (t + 0.1) ** 4, 0.01),
    "wavy": (lambda t: -t + 0.1 * torch.sin(20 * t) / 20 + t**2 / 4, 1e-3),
}
"""φ and c₂: the first two after Moré & Thuente (1994), §5."""


@pytest.mark.parametrize("first", [1e-3, 1e-1, 10.0, 1e3])
@pytest.mark.parametrize("name", HARD)
def test_strong_wolfe_on_hard_lines(name, first):
    phi, c2 = HARD[name]
    t = vector(0.0)
    closure = closure_of(lambda t: phi(t).sum(), t)
    start, slope = closure().item(), t.grad.item()
    with torch.no_grad():
        search = StrongWolfe(c1=1e-3 * c2, c2=c2)
        found = search(ClosureLine([t], [torch.ones_like(t)], closure, start, slope), first)
        t.fill_(found)
    assert closure().item() <= start + 1e-3 * c2 * found * slope
    assert abs(t.grad.item()) <= -c2 * slope
    assert found > 0 and search.probes <= 20


# --- stochastic Armijo ------------------------------------------------------------------------


def test_interpolation_is_solved_without_tuning():
    """One predictor fits all samples: batches of 4 lead to it, at a linear rate."""
    torch.manual_seed(0)
    x = torch.randn(24, 90, dtype=torch.float64)
    y = x @ torch.randn(90, dtype=torch.float64)
    w = torch.zeros(90, dtype=torch.float64, requires_grad=True)
    optimizer = SGDArmijo([w], lr=1.0)
    for _ in range(60):
        for batch in torch.randperm(24).split(4):
            xb, yb = x[batch], y[batch]
            optimizer.step(closure_of(lambda w, xb=xb, yb=yb: ((xb @ w - yb) ** 2).mean(), w))
    assert ((x @ w - y) ** 2).mean().item() < 1e-20


@pytest.mark.parametrize("reset", ["grow", "keep", "max"])
def test_reset_rule(reset):
    """On ½·10·w² with α = ½ every step up to 0.1 will do: powers of β below what is tried first."""
    w, curvature = vector(1.0), [10.0]
    closure = closure_of(lambda w: 0.5 * curvature[0] * (w**2).sum(), w)
    optimizer = SGDArmijo([w], lr=1.0, alpha=0.5, beta=0.9, reset=reset, growth=1.5)
    optimizer.step(closure)
    first = 0.9 ** math.ceil(math.log(0.1) / math.log(0.9))
    assert optimizer.group["step_length"] == pytest.approx(first)
    curvature[0] = 0.01
    tried = {"grow": 1.5 * first, "keep": first, "max": 1.0}[reset]
    optimizer.step(closure)
    assert optimizer.group["step_length"] == pytest.approx(tried)
    for _ in range(20):
        optimizer.step(closure)
    assert optimizer.group["step_length"] == pytest.approx(first if reset == "keep" else 1.0)


# --- all of them ------------------------------------------------------------------------------


def bent(w):
    """ln² w, whose derivative calls for steps far outside of where it is defined."""
    return (torch.log(w) ** 2).sum()


@pytest.mark.parametrize("kind", ALL)
def test_what_is_not_finite_is_too_far(kind):
    w = vector(4.0, 0.5)
    optimizer = kind([w], lr=1000.0)
    closure = closure_of(bent, w)
    values = [optimizer.step(closure).item() for _ in range(60)]
    assert all(after < before or after < 1e-12 for before, after in itertools.pairwise(values))
    torch.testing.assert_close(w.detach(), torch.ones_like(w), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_a_search_that_fails_leaves_the_weights(kind):
    """The closure's gradient points the wrong way."""
    w, v = vector(0.3, -1.7), vector(2.0)

    @torch.enable_grad()
    def closure(gradient=True):
        value = (w**2).sum() + (v**2).sum() + w[0] * v[0]
        w.grad, v.grad = (-g for g in torch.autograd.grad(value, (w, v)))
        return value.detach()

    optimizer, before = kind([w, v], lr=0.7), [w.detach().clone(), v.detach().clone()]
    for _ in range(2):
        optimizer.step(closure)
        assert optimizer.group["step_length"] == 0
        assert torch.equal(w, before[0]) and torch.equal(v, before[1])


@pytest.mark.parametrize("kind", ALL)
def test_an_error_in_mid_search_leaves_the_weights(kind):
    w, looks = vector(3.0), []
    good = closure_of(lambda w: (w**4).sum(), w, looks=looks)

    def closure(gradient=True):
        if len(looks) == 2:
            raise ArithmeticError
        return good(gradient)

    with pytest.raises(ArithmeticError):
        kind([w], lr=10.0).step(closure)
    assert w.item() == 3.0


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_a_minimum_nothing_moves_nor_rises(kind, dtype):
    """A search ends where rounding hides J's decrease, after few looks."""
    torch.manual_seed(0)
    x = torch.randn(30, 4, dtype=dtype)
    w = torch.zeros(4, dtype=dtype, requires_grad=True)
    looks = []
    function = functools.partial(torch.nn.functional.huber_loss, target=x.sum(1) + 3)
    closure = closure_of(lambda w: function(x @ w), w, looks=looks)
    optimizer = kind([w])
    values = [optimizer.step(closure).item() for _ in range(150)]
    assert all(after <= before for before, after in itertools.pairwise(values))
    assert values[-1] == pytest.approx(values[-50], rel=1e-6)
    looks.clear()
    optimizer.step(closure)
    assert len(looks) < 120
    w.grad = None
    assert torch.isfinite(w).all()


@pytest.mark.parametrize("kind", ALL)
def test_plain_closures_will_do(kind):
    """Those of `torch.optim` have no argument ``gradient``."""
    w = vector(2.0, -1.0)

    def closure():
        w.grad = None
        value = ((w - 1) ** 4).sum()
        value.backward()
        return value

    optimizer = kind([w], lr=0.1)
    first = optimizer.step(closure).item()
    for _ in range(5):
        optimizer.step(closure)
    assert closure().item() < 0.5 * first


@pytest.mark.parametrize("kind", ALL)
def test_state_round_trip(kind, tmp_path):
    w = vector(-1.2, 1.0)
    rosenbrock = functools.partial(
        closure_of, lambda w: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
    )
    optimizer = kind([w])
    for _ in range(5):
        optimizer.step(rosenbrock(w))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    v = w.detach().clone().requires_grad_()
    resumed = kind([v])
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(15):
        assert torch.equal(optimizer.step(rosenbrock(w)), resumed.step(rosenbrock(v)))
    assert torch.equal(w, v) and optimizer.group["step_length"] == resumed.group["step_length"]


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        (GDBacktracking, {"alpha": 0.5}, r"optimizer\.alpha"),
        (GDBacktracking, {"beta": 1.0}, r"optimizer\.beta"),
        (GDBacktracking, {"lr": 0.0}, r"optimizer\.lr"),
        (LBFGSBacktracking, {"alpha": 0.0}, r"optimizer\.alpha"),
        (LBFGSBacktracking, {"history_size": 0}, r"optimizer\.history_size"),
        (SGDArmijo, {"alpha": 1.0}, r"optimizer\.alpha"),
        (SGDArmijo, {"reset": "often"}, r"optimizer\.reset"),
        (SGDArmijo, {"growth": 0.9}, r"optimizer\.growth"),
        (GDExact, {"tolerance": 0.0}, r"optimizer\.tolerance"),
        (GDWolfe, {"c1": 0.5}, r"optimizer\.c1"),
        (GDWolfe, {"max_step": 0}, r"optimizer\.max_step"),
    ],
)
def test_numbers_out_of_range(kind, numbers, message):
    with pytest.raises(ConfigError, match=message):
        kind([torch.zeros(1, requires_grad=True)], **numbers)


def test_one_group_and_whole_parameters():
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    with pytest.raises(ConfigError, match="param_groups=all"):
        GDBacktracking([{"params": [a]}, {"params": [b]}])
    a.full_tensor = None
    with pytest.raises(ConfigError, match="trainer=fsdp"):
        GDBacktracking([a])


def test_a_state_of_earlier_versions_is_taken_up():
    """It called the length of the last step ``taken``."""
    optimizer = GDExact([torch.zeros(1, requires_grad=True)])
    state = optimizer.state_dict()
    (group,) = state["param_groups"]
    group["taken"] = group.pop("step_length") + 0.25
    optimizer.load_state_dict(state)
    assert optimizer.group["step_length"] == 0.25 and "taken" not in optimizer.group
