"""Averages of the weights against their closed forms."""

import copy
import io

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.regularizer import EMA, SWA


def states(n=12):
    torch.manual_seed(0)
    return [
        {
            "w": torch.randn(3, 2, dtype=torch.float64),
            "running": torch.randn(4, dtype=torch.float64),
            "count": torch.tensor(t),
        }
        for t in range(1, n + 1)
    ]


def run(average, states, first=1):
    for step, state in enumerate(states, first):
        average.average(state, step)
    return average.averaged()


def test_ema_is_the_weighted_sum():
    d, seen = 0.9, states()
    averaged = run(EMA(d, warmup=False), seen)
    n = len(seen)
    weights = [d ** (n - 1)] + [(1 - d) * d ** (n - t) for t in range(2, n + 1)]
    assert sum(weights) == pytest.approx(1)
    for name in ("w", "running"):
        expected = sum(a * s[name] for a, s in zip(weights, seen, strict=True))
        torch.testing.assert_close(averaged[name], expected, rtol=1e-13, atol=1e-14)
    assert int(averaged["count"]) == n


def test_ema_with_warmup():
    seen, expected = states(), None
    for t, state in enumerate(seen, 1):
        d = min(0.5, (1 + t) / (10 + t))
        expected = state["w"] if expected is None else d * expected + (1 - d) * state["w"]
    torch.testing.assert_close(run(EMA(0.5, warmup=True), seen)["w"], expected)


@pytest.mark.parametrize("build", [lambda: EMA(0.9), lambda: SWA(0.0)])
def test_the_average_is_its_own(build):
    average, seen = build(), states(3)
    assert average.averaged() is None
    kept = copy.deepcopy(seen)
    if isinstance(average, SWA):
        average.start(3, 1)
    run(average, seen)
    for state, old in zip(seen, kept, strict=True):
        assert all(torch.equal(state[n], old[n]) for n in state)


@pytest.mark.parametrize("build", [lambda: EMA(0.9), lambda: SWA(0.3)])
def test_resuming_changes_nothing(build):
    seen, whole, first, second = states(), build(), build(), build()
    for average in (whole, first, second):
        average.start(len(seen), 2)
    expected = run(whole, seen)
    run(first, seen[:7])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    averaged = run(second, seen[7:], first=8)
    assert all(torch.equal(averaged[n], expected[n]) for n in expected)


def test_resuming_before_the_first_average():
    swa = SWA(0.5)
    fresh = SWA(0.5)
    fresh.load_state_dict(swa.state_dict())
    assert fresh.averaged() is None and fresh.count == 0


def test_a_loaded_average_does_not_share_memory():
    first, second = EMA(0.5), EMA(0.5)
    run(first, states(2))
    second.load_state_dict(first.state_dict())
    before = first.averaged()["w"].clone()
    run(second, states(2), first=3)
    assert torch.equal(first.averaged()["w"], before)


def test_swa_is_the_mean_at_epoch_ends_from_the_start_on():
    seen, swa = states(12), SWA(0.5)
    swa.start(steps=12, steps_per_epoch=2)
    assert swa.refresh_statistics
    run(swa, seen[:5])
    assert swa.averaged() is None
    averaged = run(swa, seen[5:], first=6)
    counted = [seen[t - 1] for t in (6, 8, 10, 12)]
    expected = torch.stack([s["w"] for s in counted]).mean(0)
    torch.testing.assert_close(averaged["w"], expected, rtol=1e-13, atol=1e-14)
    assert swa.count == 4 and int(averaged["count"]) == 12


def test_swa_of_the_last_epoch_only_is_its_weights():
    seen, swa = states(4), SWA(1.0)
    swa.start(4, 2)
    assert torch.equal(run(swa, seen)["w"], seen[-1]["w"])


def test_averaged_weights_run_in_the_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ema = EMA(0.9)
    for step in range(1, 4):
        model(torch.randn(5, 2))
        with torch.no_grad():
            model[0].weight.add_(1)
        ema.average(model.state_dict(), step)
    averaged = ema.averaged()
    assert set(averaged) == set(model.state_dict())
    out = torch.func.functional_call(model.eval(), averaged, (torch.ones(1, 2),))
    model.load_state_dict(averaged)
    assert torch.equal(out, model(torch.ones(1, 2)))
    assert not any(t.requires_grad for t in averaged.values())


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: EMA(1.5), r"ema\.decay"),
        (lambda: EMA(None), r"ema\.decay"),
        (lambda: SWA(75), r"swa\.start"),
    ],
)
def test_wrong_numbers(build, key):
    with pytest.raises(ConfigError, match=rf"regularizer\.{key}"):
        build()


@pytest.mark.parametrize("build", [lambda: EMA(0.5, warmup=False), lambda: SWA(0.0)])
def test_an_average_of_an_earlier_version_loses_what_is_none(build):
    """It held all buffers, singular vectors among them."""
    average, (first, second) = build(), states(2)
    average.start(2, 1)
    kept = {"average": {**first, "layer.0._u": torch.ones(3)}, "count": 1}
    average.load_state_dict(kept)
    average.average(second, 2)
    assert average.averaged().keys() == first.keys()
    torch.testing.assert_close(average.averaged()["w"], (first["w"] + second["w"]) / 2)
