"""Laws of known numbers are found again; their intervals hold; what was left out is predicted."""

import numpy as np
import pytest
from scipy.optimize import minimize
from threadpoolctl import threadpool_info, threadpool_limits

from truerisk.reports import scaling_law
from truerisk.reports.scaling_law import (
    PowerLaw,
    estimate_law,
    fit_power_law,
    hold_out_largest,
    refuse_sizes,
)

SIZES = np.array([[30.0], [100.0], [300.0], [1000.0], [3000.0]])
LAW = PowerLaw(0.1, np.array([5.0]), np.array([0.6]))


def draw_risks(seeds, noise, generator):
    """Risks [seeds, points] with a part that a seed shares over sizes."""
    shared = generator.normal(size=(seeds, 1)) * noise
    own = generator.normal(size=(seeds, len(SIZES))) * noise
    return LAW.predict(SIZES) * np.exp(shared + own)


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("offset", [0.01, 0.3])
def test_a_law_of_one_size_is_found_again(exponent, offset):
    law = PowerLaw(offset, np.array([4.0]), np.array([exponent]))
    found = fit_power_law(SIZES, law.predict(SIZES))
    assert found.offset == pytest.approx(offset, rel=0.02)
    assert found.factors[0] == pytest.approx(4.0, rel=0.02)
    assert found.exponents[0] == pytest.approx(exponent, rel=0.02)


def test_least_squares_has_the_exponent_one_and_its_noise_as_the_offset():
    """Its risk with d Gaussian features is σ²(1 + d/(n − d − 1)), a law of 1/n as n grows."""
    grid, d, noise = np.array([1.0, 3.0, 10.0, 30.0, 100.0]), 20, 0.5
    for least, apart in ((400, 0.04), (4000, 0.004)):
        n = least * grid
        found = fit_power_law(n[:, None], noise**2 * (1 + d / (n - d - 1)))
        assert found.exponents[0] == pytest.approx(1.0, abs=apart)
        assert found.offset == pytest.approx(noise**2, rel=1e-3)


def test_a_law_of_two_sizes_is_found_again():
    sizes = np.array([[n, d] for n in (1e6, 1e7, 1e8, 1e9) for d in (1e8, 1e9, 1e10, 1e11)])
    law = PowerLaw(1.7, np.array([400.0, 1200.0]), np.array([0.35, 0.37]))
    found = fit_power_law(sizes, law.predict(sizes))
    assert found.offset == pytest.approx(1.7, rel=0.01)
    np.testing.assert_allclose(found.factors, law.factors, rtol=0.05)
    np.testing.assert_allclose(found.exponents, law.exponents, rtol=0.01)


def test_one_odd_point_does_not_bend_the_law():
    sizes = np.geomspace(10, 1e4, 10)[:, None]
    risks = LAW.predict(sizes)
    risks[4] *= 1.5
    found = fit_power_law(sizes, risks)
    assert found.exponents[0] == pytest.approx(0.6, rel=0.05)


def test_intervals_hold_the_law_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(scaling_law, "RESAMPLES", 20)  # enough for a spread, at a fifth of the time
    generator = np.random.default_rng(1)
    truth, inside, exponent = LAW.predict(SIZES)[2], 0, 0
    studies = 100
    for _ in range(studies):
        estimate = estimate_law(SIZES, draw_risks(5, 0.02, generator))
        low, high = estimate.band(SIZES[2:3])
        inside += bool(low[0] <= truth <= high[0])
        low, high = estimate.bound_exponent(0)
        exponent += bool(low <= 0.6 <= high)
    # two standard errors below 95 of 100 are 90.6
    assert inside >= 91 and exponent >= 91


def test_the_largest_size_is_predicted_and_a_break_is_seen():
    risks = draw_risks(5, 0.01, np.random.default_rng(2))
    held = hold_out_largest(SIZES, risks)
    assert held.at.tolist() == [[3000.0]] and held.inside.all()
    risks[:, -1] *= 1.5
    assert not hold_out_largest(SIZES, risks).inside.any()


def test_one_seed_has_no_interval():
    estimate = estimate_law(SIZES, LAW.predict(SIZES)[None])
    assert np.isnan(estimate.band(SIZES)).all() and np.isnan(estimate.bound_exponent(0)).all()
    held = hold_out_largest(SIZES, LAW.predict(SIZES)[None])
    assert held.predicted[0] == pytest.approx(held.measured[0], rel=0.01)


def test_few_sizes_and_short_ranges_are_refused():
    assert refuse_sizes(SIZES, ("n",)) == ""
    assert refuse_sizes(SIZES[:3], ("n",)) == "n has 3 values, fewer than 4"
    assert "under a decade" in refuse_sizes(SIZES * 0 + [[1], [2], [4], [8], [9]], ("n",))


def test_a_fit_wakes_no_threads(monkeypatch):
    """Of its three numbers OpenBLAS would make a work for all cores."""
    seen = []

    def look(*args, **options):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return minimize(*args, **options)

    monkeypatch.setattr("scipy.optimize.minimize", look)
    with threadpool_limits(2, "blas"):
        fit_power_law(SIZES, LAW.predict(SIZES))
    assert set(seen) == {1}
