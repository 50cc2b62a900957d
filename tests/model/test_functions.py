"""Test functions: published values, minima and curvature; their runs; what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from truerisk.assemble import build
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

PUBLISHED = {
    "quadratic_bowl": [([2.0, 1.0], 0.5 * (0.1 * 4 + 1))],
    "rosenbrock": [([-1.2, 1.0], 24.2), ([0.0, 0.0], 1.0), ([1.0, 1.0], 0.0)],
    "himmelblau": [([0.0, 0.0], 170.0), ([-0.270845, -0.923039], 181.616521)],
    "beale": [([1.0, 1.0], 14.203125), ([0.0, 0.0], 14.203125), ([3.0, 0.5], 0.0)],
    "booth": [([0.0, 0.0], 74.0), ([1.0, 3.0], 0.0)],
    "styblinski_tang": [([-2.903534, -2.903534], -78.332331), ([0.0, 0.0], 0.0)],
    "rastrigin": [([0.5, 0.0], 20.25), ([0.99495864, 0.0], 0.99495906)],
    "ackley": [([1.0, 1.0], 3.6253849), ([0.0, 0.0], 0.0)],
    "saddle": [([2.0, 1.0], 3.0)],
    "monkey_saddle": [([-1.0, 1.0], 2.0)],
    "paraboloid": [([3.0, 4.0], 25.0)],
    "sine_product": [([math.pi / 2, -math.pi / 2], -1.0), ([math.pi / 6, math.pi / 2], 0.5)],
    "cubic": [([10.0], -970.0), ([-1.0], -2.0), ([1.0], 2.0)],
    "lessard": [([1.0], 12.5), ([2.0], 38.0), ([3.0], 76.5), ([1.5], 25.125), ([-1.0], 12.5)],
    "exponential_sum": [([0.1, 0.0], 2 + math.exp(-0.2)), ([0.0, 0.0], 3 * math.exp(-0.1))],
}
"""Rosenbrock 1960, Moré et al. 1981 (no. 5), Jamil & Yang 2013; the others by hand."""

CURVATURE = {
    "quadratic_bowl": ([0.0, 0.0], [0.1, 1.0]),
    "rosenbrock": ([1.0, 1.0], [501 - 250601**0.5, 501 + 250601**0.5]),
    "himmelblau": ([3.0, 2.0], [54 - 800**0.5, 54 + 800**0.5]),
    "beale": ([3.0, 0.5], [24.640625 - 592.394775390625**0.5, 24.640625 + 592.394775390625**0.5]),
    "booth": ([1.0, 3.0], [2.0, 18.0]),
    "styblinski_tang": ([-2.903534027771177] * 2, [6 * 2.903534027771177**2 - 16] * 2),
    "rastrigin": ([0.0, 0.0], [2 + 40 * math.pi**2] * 2),
    "saddle": ([0.0, 0.0], [-2.0, 2.0]),
    "monkey_saddle": ([0.0, 0.0], [0.0, 0.0]),
    "paraboloid": ([0.5, -7.0], [2.0, 2.0]),
    "sine_product": ([math.pi / 2, -math.pi / 2], [1.0, 1.0]),
    "cubic": ([-1.0], [6.0]),
    "lessard": ([0.0], [25.0]),
    "exponential_sum": (
        [-math.log(2) / 2, 0.0],
        [2 * 2**0.5 * math.exp(-0.1), 9 * 2**0.5 * math.exp(-0.1)],
    ),
}
"""Eigenvalues of the Hessian at a point where the gradient is zero, or any for the paraboloid."""

BRIEF = ["trainer.max_epochs=40", "risk.every=1000"]
UNBOUNDED = {"saddle", "monkey_saddle", "cubic"}


def function(name, *numbers):
    cfg = compose(["data=none", f"model={name}", *numbers])
    return build(cfg.model, dtype=torch.float64)


def point(*entries):
    return torch.tensor(entries, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    f = function(name)
    for at, value in PUBLISHED[name]:
        assert f.value(point(*at)).item() == pytest.approx(value, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", CURVATURE)
def test_curvature(name):
    f = function(name)
    at, expected = CURVATURE[name]
    hessian = torch.autograd.functional.hessian(f.value, point(*at))
    found = torch.linalg.eigvalsh(hessian)
    torch.testing.assert_close(found, point(*expected), rtol=1e-6, atol=1e-9)
    if name != "paraboloid":
        gradient = torch.autograd.functional.jacobian(f.value, point(*at))
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_minima(name):
    """The gradient vanishes, the value is what is said, and points around are not lower."""
    f = function(name)
    assert f.bounded == (name not in UNBOUNDED)
    assert (len(f.minima) > 0) == (name not in {"saddle", "monkey_saddle"})
    torch.manual_seed(0)
    for w in f.minima:
        gradient = torch.autograd.functional.jacobian(f.value, w)
        assert gradient.abs().max() < 1e-9
        assert f.value(w).item() == pytest.approx(f.minimum, rel=1e-12, abs=1e-12)
        directions = torch.nn.functional.normalize(torch.randn(50, f.size, dtype=w.dtype))
        assert (f.value(w + 1e-3 * directions) > f.value(w)).all()
        assert f.distance(w + 0.01 * directions).allclose(point(0.01))


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - UNBOUNDED))
def test_nothing_is_lower_than_the_minimum(name):
    f = function(name)
    axes = [torch.linspace(*ends, 401, dtype=torch.float64) for ends in f.region]
    points = torch.cartesian_prod(*axes).reshape(-1, f.size)
    assert f.value(points).min() >= f.minimum - 1e-12


@pytest.mark.parametrize("name", PUBLISHED)
def test_starts(name):
    """From the start there is a way down, and it is in view."""
    f = function(name)
    f(torch.zeros(1, 1)).sum().backward()
    assert f.w.grad.norm() > 0 and f.w.dtype == torch.float64
    for entry, (low, high) in zip(f.w.tolist(), f.region, strict=True):
        assert low <= entry <= high


def test_a_gaussian_fields_covariance():
    """At 0 and at (0.6, 0.8), over fields: variance 1, covariance exp(−½), a slope of 1 an axis."""
    at = torch.stack([point(0.0, 0.0), point(0.6, 0.8)])
    cfg, fields = compose(["data=none", "model=gaussian_field", "model.waves=50"]), []
    for i in range(500):
        cfg.model.field = i
        fields.append(build(cfg.model, dtype=torch.float64))
    values = torch.stack([f.value(at) for f in fields]).detach()
    found = values.T @ values / len(values)
    expected = point([1, math.exp(-0.5)], [math.exp(-0.5), 1])
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * (2 / 500) ** 0.5)
    slopes = torch.stack([torch.autograd.functional.jacobian(f.value, at[0]) for f in fields])
    assert slopes.square().mean().item() == pytest.approx(1, abs=4 * (2 / 1000) ** 0.5)


def test_a_level_gaussian_field():
    """It has lost its slope at 0, and neither its value nor its curvature there."""
    zero = torch.zeros(4, dtype=torch.float64)
    free, level = (
        function("gaussian_field", "model.dimension=4", f"model.level={level}")
        for level in ("false", "true")
    )
    assert free.value(zero) == level.value(zero)
    assert torch.autograd.functional.jacobian(free.value, zero).norm() > 0.1
    assert torch.equal(torch.autograd.functional.jacobian(level.value, zero), zero)
    curvatures = [torch.autograd.functional.hessian(f.value, zero) for f in (free, level)]
    torch.testing.assert_close(*curvatures)


@pytest.mark.parametrize("name", ["rosenbrock", "styblinski_tang", "rastrigin", "ackley"])
def test_any_dimension(name):
    f = function(name, "model.dimension=5")
    (w,) = f.minima
    assert len(w) == len(f.w) == 5
    assert f.value(w).item() == pytest.approx(f.minimum, abs=1e-9)
    assert torch.autograd.functional.jacobian(f.value, w).abs().max() < 1e-9


def test_rosenbrocks_second_minimum_in_four_dimensions():
    """Near (−0.776, 0.613, 0.382, 0.146), at 3.7014 (Shang & Qiu 2006)."""
    f = function("rosenbrock", "model.dimension=4")
    w = point(-0.77565923, 0.61309337, 0.38206285, 0.14597202)
    assert torch.autograd.functional.jacobian(f.value, w).abs().max() < 1e-4
    assert f.value(w).item() == pytest.approx(3.70143, abs=1e-5)
    assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(f.value, w)).min() > 0


def test_a_change_of_variables_moves_the_minimum():
    f = function("exponential_sum", "model.change=[[2,1],[0,4]]")
    (w,) = f.minima
    assert torch.autograd.functional.jacobian(f.value, w).abs().max() < 1e-12
    plain = function("exponential_sum")
    assert f.value(point(0.3, -0.1)) == plain.value(point(0.5, -0.4))


@pytest.mark.parametrize("rotation", ["null", "3"])
def test_bowls_have_the_spectrum_asked_for(rotation):
    given = ["model.dimension=5", "model.condition=1e4", f"model.rotation={rotation}"]
    f = function("quadratic_bowl", *given)
    hessian = torch.autograd.functional.hessian(f.value, f.w.detach())
    found = torch.linalg.eigvalsh(hessian)
    torch.testing.assert_close(found, torch.logspace(-4, 0, 5, dtype=torch.float64))
    assert bool((hessian - hessian.diagonal().diag()).any()) == (rotation != "null")
    given = ["model.spectrum=[3,-1,0.5]", f"model.rotation={rotation}"]
    saddle = function("quadratic_bowl", *given)
    hessian = torch.autograd.functional.hessian(saddle.value, saddle.w.detach())
    torch.testing.assert_close(torch.linalg.eigvalsh(hessian), point(-1.0, 0.5, 3.0))
    assert not saddle.bounded and not len(saddle.minima)


def test_distance_from_a_flat_bottom():
    f = function("quadratic_bowl", "model.spectrum=[2,0]", "model.start=[3,4]")
    assert f.distance(f.w).item() == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["model=booth", "model.start=[1]"], r"model\.start has 1 numbers.*takes 2"),
        (["model=booth", "model.start=[1,x]"], r"model\.start"),
        (["model=rosenbrock", "model.dimension=1"], r"model\.dimension"),
        (["model=rosenbrock", "model.start=[1,2,3]"], "more than model.dimension=2"),
        (["model=quadratic_bowl", "model.condition=0.5"], r"model\.condition"),
        (["model=quadratic_bowl", "model.spectrum=[]"], r"model\.spectrum"),
        (["model=exponential_sum", "model.change=[[1,2]]"], "takes 2 rows of 2 numbers"),
        (["model=exponential_sum", "model.change=[[1,2],[2,4]]"], "has no inverse"),
        (
            ["model=exponential_sum", "model.change=[[nan,0],[0,1]]"],
            "model.change must be a number",
        ),
        (["model=booth", "initializer=zeros"], r"model\.start"),
        (["model=booth", "regularizer=dropout"], "leave dropout out"),
        (["model=booth", "regularizer=l2"], r"regularizer\.l2\.rules"),
        (["model=booth", "regularizer=mixup"], "leave mixup out"),
        (["model=mlp"], "model=rosenbrock"),
    ],
)
def test_refusals(given, message, run):
    with pytest.raises(ConfigError, match=message):
        run("data=none", *given)


def test_a_function_reads_no_data(run):
    with pytest.raises(ConfigError, match="add data=none"):
        run("data=iris", "model=booth")


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - UNBOUNDED))
def test_a_second_order_method_finds_a_stationary_point(name, run, series):
    """And the run says how far from a known minimum it is."""
    result = run("data=none", f"model={name}", "optimizer=newton_cg", *BRIEF)
    f = function(name)
    w = point(*[series(result, f"w/{i}").iloc[-1] for i in range(f.size)])
    assert result.status == "finished"
    if name == "ackley":  # a cone: there is a gradient however near the tip
        assert f.distance(w) < 1e-9
    else:
        assert torch.autograd.functional.jacobian(f.value, w).norm() < 1e-5
    distance = result.summary["distance"].value
    assert distance == pytest.approx(f.distance(w).item(), abs=1e-6)
    assert series(result, "risk/val").iloc[-1] < series(result, "risk/val")[0]


def test_gradient_descent_on_a_bowl_is_its_closed_form(run, series):
    """The coordinate of λ is (1 − ηλ)ᵗ of its first value."""
    given = ["model=quadratic_bowl", "model.condition=100", "model.start=[3,-2]"]
    result = run("data=none", *given, "optimizer=gd", "optimizer.lr=1.5", "trainer.max_epochs=25")
    for i, (rate, start) in enumerate([(0.01, 3.0), (1.0, -2.0)]):
        history = result.history
        path = history[history.name == f"w/{i}"].drop_duplicates("step").set_index("step").value
        assert len(path) == 26
        for t, value in path.items():
            assert value == pytest.approx((1 - 1.5 * rate) ** t * start, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["gd", "gd_backtracking", "gd_wolfe", "lbfgs", "newton"])
def test_the_cubic_diverges(optimizer, run, series):
    """A line search too, although all it sees is finite."""
    result = run("data=none", "model=cubic", f"optimizer={optimizer}")
    assert result.status == "diverged"
    assert result.reason.startswith("step ")
    assert "the function is unbounded below" in result.reason or "not finite" in result.reason


def test_the_cubic_has_a_minimum_on_the_other_side(run):
    result = run("data=none", "model=cubic", "model.start=[0.9]", "optimizer=gd")
    assert result.status == "finished" and result.summary["distance"].value < 1e-7
