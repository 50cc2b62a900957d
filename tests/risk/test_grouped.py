"""Standard errors of samples that come in groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from truerisk.risk.estimate import GroupedEstimate, MeanEstimate


def test_with_a_group_a_sample_it_is_the_plain_error():
    values = torch.rand(50, dtype=torch.float64)
    plain, grouped = MeanEstimate(), GroupedEstimate(50)
    plain.update(values)
    grouped.update(values[:20], torch.arange(20))
    grouped.update(values[20:], torch.arange(20, 50))
    assert grouped.to_measured() == pytest.approx((*plain.to_measured()[:2], None, 50))
    assert grouped.to_measured(200).stderr == pytest.approx(plain.to_measured(200).stderr)
    assert grouped.to_measured(50).stderr == 0


def test_of_alike_groups_it_is_that_of_their_means():
    means = torch.tensor([0.0, 1.0, 5.0, 2.0], dtype=torch.float64)
    estimate = GroupedEstimate(4)
    estimate.update(means.repeat_interleave(6), torch.arange(4).repeat_interleave(6))
    assert estimate.to_measured().stderr == pytest.approx(float(means.std()) / 2)
    alone = GroupedEstimate(1)
    alone.update(means, torch.zeros(4, dtype=torch.long))
    assert np.isnan(alone.to_measured().stderr)


def test_of_weights_it_is_the_linearized_ratios():
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(40, generator=draw, dtype=torch.float64)
    weights = torch.rand(40, generator=draw, dtype=torch.float64)
    estimate = GroupedEstimate(40)
    estimate.update(values, torch.arange(40), weights)
    mean = float((weights * values).sum() / weights.sum())
    influence = weights * (values - mean) / weights.mean()
    assert estimate.to_measured()[:2] == pytest.approx((mean, float(influence.std()) / 40**0.5))


def test_its_interval_covers_where_the_plain_one_does_not():
    """20 patients of 5 rows, half of whose variance is the patient's own."""
    draw, studies, G, m = np.random.default_rng(0), 2000, 20, 5
    groups = torch.arange(G).repeat_interleave(m)
    quantile = stats.t.ppf(0.975, G - 1)
    covered = {"plain": 0, "clustered": 0}
    for _ in range(studies):
        values = torch.as_tensor(draw.normal(size=(G, 1)) + draw.normal(size=(G, m))).flatten()
        plain, clustered = MeanEstimate(), GroupedEstimate(G)
        plain.update(values)
        clustered.update(values, groups)
        mean, stderr, *_ = plain.to_measured()
        covered["plain"] += abs(mean) < 1.96 * stderr
        mean, stderr, *_ = clustered.to_measured()
        covered["clustered"] += abs(mean) < quantile * stderr
    # 95 % within three standard errors of 2,000 draws
    assert abs(covered["clustered"] / studies - 0.95) < 3 * (0.95 * 0.05 / studies) ** 0.5
    assert covered["plain"] / studies < 0.80


def test_a_run_of_groups_tells_the_clustered_error(run, tmp_path):
    draw = np.random.default_rng(1)
    site = np.repeat(np.arange(30), 4)
    x = np.repeat(draw.normal(size=(30, 2)), 4, 0)
    y = np.repeat(draw.normal(size=30), 4)  # what a site has in common is all there is
    np.savez(tmp_path / "s.npz", x=x, y=y, site=site)
    common = [
        "data=arrays", f"data.source.path={tmp_path}/s.npz", "loss=mse", "model=linear",
        "data.split=group:site", "trainer.max_epochs=1", "trainer.precision=64-true",
    ]  # fmt: skip
    result = run(*common)
    import truerisk

    _, data = truerisk.build_module(common)
    data.prepare()
    losses = (result.predict(data.raw(data.test.x)).values - data.test.y.numpy())[:, 0] ** 2
    means = losses.reshape(-1, 4).mean(1)
    measured = result.summary["risk/test"]
    assert measured.value == pytest.approx(losses.mean())
    assert measured.stderr == pytest.approx(means.std(ddof=1) / len(means) ** 0.5)
    assert measured.stderr > 1.5 * losses.std(ddof=1) / len(losses) ** 0.5
