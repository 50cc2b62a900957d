"""Eigenvalues, trace, diagonal, density and condition number, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.objective import (
    DenseOperator,
    GaussNewtonOperator,
    HessianOperator,
    ScaledOperator,
    condition_number,
    estimate_diagonal,
    extreme_eigenvalues,
    hutch_plus_plus,
    hutchinson_trace,
    lanczos_quadrature,
    largest_eigenvalues,
    spectral_density,
)
from truerisk.objective.eigenvalues import average_draws

LARGE = torch.linspace(-2, 3, 150, dtype=torch.float64).pow(3).tolist()
"""More eigenvalues than are computed densely: from −8 to 27, most near 0."""


@pytest.fixture(scope="module")
def large(symmetric):
    return DenseOperator(symmetric(*LARGE))


def dense_spectrum(point):
    return torch.linalg.eigvalsh(HessianOperator(point).dense())


@pytest.mark.parametrize("name", ["mlp-layer", "gru-deep", "transformer-layer", "resnet-batch"])
def test_extremes_of_a_models_hessian(case, name):
    point = case(name, "train").point()
    assert point.space.size > 64  # so that they are not computed densely
    expected = dense_spectrum(point)
    h = HessianOperator(point)
    low, high = extreme_eigenvalues(h, 2)
    scale = float(expected.abs().max())
    torch.testing.assert_close(low.values, expected[:2], rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(high.values, expected[-2:].flip(0), rtol=0, atol=1e-9 * scale)
    for pairs in (low, high):
        torch.testing.assert_close(
            h @ pairs.vectors, pairs.vectors * pairs.values, rtol=0, atol=1e-6
        )


def test_extremes_of_a_wide_spectrum(large):
    low, high = extreme_eigenvalues(large, 3)
    torch.testing.assert_close(low.values.tolist(), LARGE[:3], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(high.values.tolist(), LARGE[:-4:-1], rtol=1e-9, atol=1e-9)
    alone = largest_eigenvalues(large, 3)
    assert torch.equal(alone.values, high.values)


@pytest.mark.parametrize("values", [(5.0,), (-1.0, 2.0), (1.0, 2.0, 3.0, -4.0)])
def test_extremes_of_small_matrices(symmetric, values):
    low, high = extreme_eigenvalues(DenseOperator(symmetric(*values)), 2)
    expected = torch.tensor(sorted(values)).double()
    torch.testing.assert_close(low.values, expected[:2])
    torch.testing.assert_close(high.values, expected.flip(0)[:2])
    assert low.errors.max() < 1e-12


def test_eigenvalue_errors_bound_the_distance_to_the_spectrum(large):
    rough = largest_eigenvalues(large, 1, tol=0.1)
    nearest = (torch.tensor(LARGE) - rough.values).abs().min()
    assert nearest <= rough.errors[0] + 1e-12


def test_condition_numbers(symmetric):
    definite = DenseOperator(symmetric(*torch.linspace(0.5, 20, 100).tolist()))
    assert condition_number(definite) == pytest.approx(40, rel=1e-9)
    assert condition_number(definite, limit=10) == pytest.approx(40, rel=1e-8)
    assert condition_number(DenseOperator(-definite.matrix), limit=10) == pytest.approx(
        40, rel=1e-8
    )
    mixed = DenseOperator(symmetric(-3.0, 0.0, 0.25, 2.0))
    assert condition_number(mixed) == float("inf")
    assert condition_number(mixed, positive=True) == pytest.approx(8, rel=1e-12)
    none = condition_number(DenseOperator(symmetric(-1.0, -2.0)), positive=True)
    assert none != none


def test_a_condition_number_that_products_do_not_tell_is_refused(large):
    with pytest.raises(ConfigError, match="limit=150"):
        condition_number(large, limit=100)
    assert condition_number(large) > 1e4


def test_trace_estimates_are_unbiased_and_know_their_error(large):
    exact = sum(LARGE)
    for estimate in (hutchinson_trace, hutch_plus_plus):
        draws = [estimate(large, 30, seed) for seed in range(60)]
        values, errors = (torch.stack(part) for part in list(zip(*draws, strict=True))[:2])
        mean, stderr = values.mean(), values.std() / 60**0.5
        assert abs(mean - exact) < 4 * stderr
        assert 0.5 < errors.mean() / values.std() < 2


@pytest.mark.parametrize(("spread", "least"), [("even", 0.94), ("one", 0.88)])
def test_the_interval_of_a_trace_holds_it(spread, least):
    """With 16 probes; ±1.96 standard errors hold it in 0.93 and 0.86 of these draws."""
    draw = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(40, 40, generator=draw, dtype=torch.float64)).Q
    values = torch.linspace(1, 2, 40, dtype=torch.float64)
    if spread == "one":  # vᵀAv is then nearly χ² with one degree of freedom
        values = torch.tensor([40.0, *[0.01] * 39], dtype=torch.float64)
    matrix = vectors @ torch.diag(values) @ vectors.T
    held = []
    for _ in range(600):
        v = torch.randint(0, 2, (16, 40), generator=draw).double() * 2 - 1
        low, high = average_draws((v * (v @ matrix)).sum(1)).interval()
        held.append(bool(low <= matrix.trace() <= high))
    assert np.mean(held) > least


def test_estimates_know_their_degrees_of_freedom(large):
    assert hutchinson_trace(large, 16).freedom == estimate_diagonal(large, 16).freedom == 15
    assert hutch_plus_plus(large, 48).freedom == 15  # of the third that is random


def test_trace_is_exact_where_it_can_be(symmetric):
    low_rank = DenseOperator(symmetric(*[3.0, 1.0], *[0.0] * 30))
    assert hutch_plus_plus(low_rank, 12).value == pytest.approx(4.0, rel=1e-12)
    flat = DenseOperator(torch.diag(torch.arange(5.0)))
    assert hutchinson_trace(flat, 2).value == 10.0
    assert torch.equal(estimate_diagonal(flat, 2).value, torch.arange(5.0))
    with pytest.raises(ConfigError, match="at least 6"):
        hutch_plus_plus(flat, 5)


def test_diagonal_is_unbiased_and_knows_its_error(large):
    found = estimate_diagonal(large, 400)
    off = (found.value - large.matrix.diagonal()) / found.stderr
    assert 0.8 < off.square().mean() < 1.25  # 150 standard scores


def test_lanczos_quadrature_is_exact_for_polynomials(large):
    v = torch.randn(150, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = v / v.norm(dim=0)
    found = lanczos_quadrature(large, v, 4)
    power = v
    for order in range(8):
        quadratic = (v * power).sum(0)
        integral = (found.weights * found.nodes**order).sum(1)
        torch.testing.assert_close(integral, quadratic, rtol=1e-9, atol=1e-9)
        power = large @ power


def test_density_of_a_known_spectrum(large):
    found = spectral_density(large, probes=40, steps=60)
    torch.testing.assert_close(found.nodes.max().item(), LARGE[-1], rtol=1e-9, atol=0)
    torch.testing.assert_close(found.nodes.min().item(), LARGE[0], rtol=1e-9, atol=0)
    values = torch.tensor(LARGE).double()
    for order in (1, 2, 3):
        moment = found.moment(order)
        assert abs(moment.value - (values**order).mean()) < 4 * moment.stderr
    share = found.share(-0.1, 0.1)
    expected = ((values > -0.1) & (values < 0.1)).double().mean()
    assert abs(share.value - expected) < 4 * share.stderr + 0.02
    grid = torch.linspace(-20, 40, 4000, dtype=torch.float64)
    torch.testing.assert_close(torch.trapezoid(found.on(grid), grid).item(), 1.0, rtol=1e-6, atol=0)


def test_density_does_not_depend_on_how_many_move_together(case):
    point = case("mlp-layer").point()
    a, b = (spectral_density(GaussNewtonOperator(point), 4, 8, together=t) for t in (1, None))
    torch.testing.assert_close(a.nodes, b.nodes, rtol=1e-8, atol=1e-10)


def test_scaled_is_what_its_formula_says(symmetric):
    a = symmetric(-1.0, 2.0, 5.0)
    s, c = torch.tensor([0.5, 1.0, 4.0]).double(), torch.tensor([0.0, 0.1, 0.2]).double()
    found = ScaledOperator(DenseOperator(a), s, c)
    expected = s.sqrt().diag() @ (a + c.diag()) @ s.sqrt().diag()
    torch.testing.assert_close(found.dense(), expected)
    torch.testing.assert_close(found @ s, expected @ s)
