"""What J does around w: kinds of critical points, convexity, Taylor, sharpness, slices."""

from __future__ import annotations

import math

import pytest
import torch

from truerisk.core.batch import Batch
from truerisk.model import MLP
from truerisk.objective import (
    HessianOperator,
    LocalObjective,
    Objective,
    ball_sharpness,
    box_sharpness,
    check_convexity,
    classify_point,
    evaluate_line,
    evaluate_plane,
    filter_normalized_directions,
    gradient,
    principal_directions,
    taylor_polynomial,
)

POINTS = {
    "minimum": (lambda w: w[0] ** 2 + 3 * w[1] ** 2 + w[0] * w[1], (0.0, 0.0)),
    "maximum": (lambda w: -w.square().sum() + w[1] ** 3, (0.0, 0.0)),
    "saddle": (lambda w: w[0] ** 2 - w[1] ** 2, (0.0, 0.0)),
    "degenerate": (lambda w: w[0] ** 3 - 3 * w[0] * w[1] ** 2, (0.0, 0.0)),
    "not stationary": (lambda w: w[0] ** 2 - w[1] ** 2, (0.1, 0.0)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", POINTS)
def test_kinds_of_critical_points(point_on, kind, dtype):
    f, start = POINTS[kind]
    found = classify_point(point_on(f, *start, dtype=dtype))
    assert found.kind == kind
    assert found.gradient_norm == pytest.approx(0.2 if kind == "not stationary" else 0, abs=1e-6)


def test_a_valley_with_a_flat_floor_is_degenerate(point_on):
    assert classify_point(point_on(lambda w: (w[0] + w[1]) ** 2, 0.0, 0.0)).kind == "degenerate"


def test_the_two_ends_of_the_spectrum_tell_as_much_as_all_of_it(point_on, symmetric):
    for low, kind in ((0.1, "minimum"), (-0.1, "saddle")):
        a = symmetric(low, *torch.linspace(1, 5, 99).tolist())
        point = point_on(lambda w, a=a: 0.5 * w @ a @ w, *[0.0] * 100)
        ends = classify_point(point, limit=10)
        everything = classify_point(point)
        assert ends.kind == everything.kind == kind
        torch.testing.assert_close(ends.eigenvalues, everything.eigenvalues[[0, -1]])
        assert classify_point(point, eigenvalues=ends.eigenvalues).kind == kind


def test_tolerances_of_a_critical_point_are_the_users(point_on):
    point = point_on(lambda w: 1e-3 * w[0] ** 2 + w[1] ** 2, 0.0, 1e-3)
    assert classify_point(point).kind == "not stationary"
    assert classify_point(point, stationary=0.01).kind == "minimum"
    assert classify_point(point, stationary=0.01, zero=0.01).kind == "degenerate"


def test_convexity_along_segments(point_on):
    start = [0.5] * 3
    assert check_convexity(point_on(lambda w: w.exp().sum(), *start)).convex
    assert check_convexity(point_on(lambda w: w.sum(), *start)).convex  # gaps of 0, up to rounding
    wavy = check_convexity(point_on(lambda w: w.sin().sum(), *start))
    assert wavy.violations > 10
    concave = check_convexity(point_on(lambda w: -w.square().sum(), *start), segments=20)
    assert concave.violations == 20


def test_taylor_errors_fall_by_the_orders_they_promise(case):
    point = case("gru-deep").point()
    step = torch.randn_like(point.w)
    model = taylor_polynomial(point, step)
    sizes = (1e-2, 1e-3)
    exact = [point.move_to(point.w + t * step).value() for t in sizes]
    for prediction, order in ((model.first, 2), (model.second, 3)):
        errors = [abs(float(prediction(t) - j)) for t, j in zip(sizes, exact, strict=True)]
        assert math.log10(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    torch.testing.assert_close(model.curvature, step @ (HessianOperator(point).dense() @ step))


# --- sharpness ------------------------------------------------------------------------------------


def test_box_sharpness_of_a_plane(point_on):
    """max aᵀy over |yᵢ| ≤ ε(|wᵢ| + 1) is Σ|aᵢ| ε(|wᵢ| + 1)."""
    a = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)
    point = point_on(lambda w: w @ a + 7, 1.0, -4.0, 0.0)
    found = box_sharpness(point, 0.01)
    rise = 0.01 * (3 * 2 + 2 * 5 + 0.5)
    assert found.rise == pytest.approx(rise, rel=1e-9)
    assert found.value == pytest.approx(18)
    assert found.percent == pytest.approx(100 * rise / (1 + found.value), rel=1e-9)


def test_box_sharpness_at_a_minimum_is_that_of_a_corner(point_on):
    """½Σλᵢwᵢ² at 0, where the gradient is 0: the maximum, ½Σλᵢε², is at any corner."""
    values = torch.tensor([0.5, 1.0, 40.0], dtype=torch.float64)
    point = point_on(lambda w: 0.5 * values @ w.square(), 0.0, 0.0, 0.0)
    assert box_sharpness(point, 0.1).rise == pytest.approx(0.5 * 41.5 * 0.01, rel=1e-9)


def test_box_sharpness_of_a_model_is_no_less_than_at_any_point_tried(case):
    point = case("mlp-none").point()
    found = box_sharpness(point, 0.01)
    half = 0.01 * (point.w.abs() + 1)
    noise = 2 * torch.rand(200, point.space.size, dtype=torch.float64) - 1
    tried = [point.move_to(point.w + half * n.sign()).value() for n in noise]
    assert found.rise > max(float(t) for t in tried) - found.value > 0
    uphill = point.move_to(point.w + half * gradient(point).sign()).value()
    assert found.rise > 0.95 * float(uphill - point.value())


def test_box_sharpness_at_a_maximum_is_zero(point_on):
    found = box_sharpness(point_on(lambda w: -w.square().sum(), 0.0, 0.0))
    assert found.rise == pytest.approx(0, abs=1e-12)
    assert found.rise >= 0


def test_ball_sharpness(point_on, symmetric):
    """ρ‖g‖ + ½ρ² gᵀAg/gᵀg for ½wᵀAw + bᵀw."""
    a = symmetric(0.5, 2.0, 7.0)
    point = point_on(lambda w: 0.5 * w @ a @ w, 1.0, 2.0, -1.0)
    g = a @ point.w
    expected = 0.3 * g.norm() + 0.5 * 0.09 * (g @ a @ g) / (g @ g)
    assert ball_sharpness(point, 0.3).rise == pytest.approx(float(expected), rel=1e-12)
    assert ball_sharpness(point_on(lambda w: w.square().sum(), 0.0), 0.3).rise == 0


# --- directions and slices ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet-batch", "lstm-deep", "transformer-layer"])
def test_filters_of_a_direction_are_as_long_as_those_of_the_weights(case, name):
    point = case(name).point()
    directions = filter_normalized_directions(point.space, point.w)
    weights = point.space.named(point.w)
    for d in directions.T:
        for layer, part in point.space.named(d).items():
            w = weights[layer]
            if w.ndim < 2:
                assert not part.any()
            else:
                torch.testing.assert_close(part.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1))
    assert not torch.equal(*directions.T)


def test_slices_do_not_change_when_a_layer_is_scaled_and_the_next_scaled_back():
    """The invariance that filter normalization is for (Li et al. 2018, §4)."""
    torch.manual_seed(0)
    model = MLP((6,), 3, width=4, activation="relu", bias=False).double()
    batch = Batch(torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 3)
    objective = Objective(model, torch.nn.CrossEntropyLoss(reduction="none"))

    def seen():
        point = LocalObjective(objective, None, [batch])
        return evaluate_line(
            point, filter_normalized_directions(point.space, point.w)[:, 0], [-1.0, 0.0, 0.5, 1.0]
        )

    before = seen()
    with torch.no_grad():
        model.hidden[0].linear.weight *= 8
        model.hidden[1].linear.weight /= 8
    torch.testing.assert_close(seen(), before)


def test_directions_of_a_bare_vector(point_on):
    point = point_on(lambda w: w.square().sum(), 3.0, 4.0)
    a, b = filter_normalized_directions(point.space, point.w).T
    assert a.norm() == pytest.approx(5) and b.norm() == pytest.approx(5)
    assert a @ b == pytest.approx(0, abs=1e-12)
    at_zero = point_on(lambda w: w.square().sum(), 0.0, 0.0)
    assert filter_normalized_directions(at_zero.space, at_zero.w).norm(
        dim=0
    ).tolist() == pytest.approx([1, 1])


def test_principal_directions_of_points_in_a_plane():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64)).Q
    inside = torch.randn(12, 2, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    path = inside @ basis.T + torch.randn(30, dtype=torch.float64)
    found = principal_directions(path)
    torch.testing.assert_close(path[-1] + found.at @ found.axes.T, path)
    torch.testing.assert_close(found.axes.T @ found.axes, torch.eye(2).double())
    centred = path - path.mean(0)
    variances = torch.linalg.eigvalsh(centred.T @ centred).flip(0)
    torch.testing.assert_close(found.share, variances[:2] / variances.sum())
    assert found.share.sum() == pytest.approx(1)
    assert (found.at[0] >= 0).all() and not found.at[-1].any()


def test_planes_are_required_to_be_planes():
    for path in (torch.zeros(1, 5), torch.zeros(5, 1)):
        with pytest.raises(ValueError, match="span no plane"):
            principal_directions(path)


def test_slices(point_on):
    point = point_on(lambda w: w[0] + 10 * w[1], 1.0, 2.0)
    directions = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).double()
    found = evaluate_plane(point, directions, [0.0, 1.0, 2.0], [0.0, 0.5])
    assert found.tolist() == [[21.0, 32.0, 43.0], [31.0, 42.0, 53.0]]
    assert evaluate_line(point, directions[:, 1], [0.5]).tolist() == [31.0]
