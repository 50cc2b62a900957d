"""Hill climbing: never up, its own draws, and the 1/5 rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import HillClimbing


def sphere(w):
    return lambda: (w**2).sum()


def climb(seed, steps=5, **numbers):
    torch.manual_seed(seed)
    w = torch.full((10,), 2.0, dtype=torch.float64)
    optimizer = HillClimbing([w], **numbers)
    values = [optimizer.step(sphere(w)).item() for _ in range(steps)]
    return w, values, optimizer


def test_never_up():
    _, values, _ = climb(0, 300, lr=0.5, proposals=1)
    pairs = list(itertools.pairwise(values))
    assert all(after <= before for before, after in pairs)
    assert any(after == before for before, after in pairs)
    assert values[-1] < 0.1 * values[0]


def test_never_up_in_a_run(stepping, micro_batches):
    given = ["data=iris", "model.width=6", "regularizer=l2", "optimizer=hill_climbing"]
    recipe, step = stepping(*given)
    values = []
    for micro in micro_batches(recipe, 30):
        values.append(step.value(micro).item())
        step(micro)
    assert all(after <= before for before, after in itertools.pairwise(values))
    assert values[-1] < values[0] - 0.1
    assert all(p.grad is None for p in step.params)


def test_draws_are_its_own():
    """Seeded from the global stream, and taken from another."""
    a, *_ = climb(0)
    after = torch.get_rng_state()
    b, *_ = climb(0, steps=50)
    assert torch.equal(after, torch.get_rng_state())
    assert torch.equal(a, climb(0)[0]) and not torch.equal(a, b)
    assert not torch.equal(a, climb(1)[0])


def test_one_proposal_by_hand():
    torch.manual_seed(3)
    w = torch.full((4,), 5.0, dtype=torch.float64)
    optimizer = HillClimbing([w], lr=0.1, proposals=1, damping=2.0)
    twin = torch.Generator()
    for expected in (True, False):
        twin.set_state(optimizer.draws.get_state())
        z = torch.randn(4, generator=twin, dtype=torch.float64)
        before, scale = w.clone(), optimizer.scale
        proposed = before + 0.1 * scale * z
        falls = ((proposed**2).sum() < (before**2).sum()).item()
        optimizer.step(sphere(w) if falls == expected else lambda: -(w**2).sum())
        torch.testing.assert_close(w, proposed if expected else before, rtol=0, atol=0)
        assert optimizer.scale == pytest.approx(scale * math.exp((expected - 0.2) / 2))


def test_about_one_in_five_is_accepted():
    """Whatever the first proposals are like."""
    for lr in (1e-4, 10.0):
        w, _, optimizer = climb(0, 1, lr=lr, proposals=400)
        before, accepted = (w**2).sum(), 0
        optimizer.param_groups[0]["proposals"] = 1
        for _ in range(400):
            optimizer.step(sphere(w))
            accepted += int((w**2).sum() < before)
            before = (w**2).sum()
        assert 0.12 < accepted / 400 < 0.28, lr


def test_what_is_not_finite_is_not_accepted():
    torch.manual_seed(0)
    w = torch.full((2,), 0.1, dtype=torch.float64)
    optimizer = HillClimbing([w], lr=1.0, proposals=300)
    optimizer.step(lambda: (torch.log(w) ** 2).sum())
    torch.testing.assert_close(w, torch.ones_like(w), rtol=0, atol=1e-3)


def test_state_round_trip(tmp_path):
    w, _, optimizer = climb(0, lr=0.5, proposals=3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    v = w.clone()
    torch.manual_seed(7)
    resumed = HillClimbing([v], lr=0.5, proposals=3)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(20):
        optimizer.step(sphere(w))
        resumed.step(sphere(v))
    assert torch.equal(w, v) and optimizer.scale == resumed.scale


@pytest.mark.parametrize("numbers", [{"lr": 0.0}, {"proposals": 0}, {"damping": -1.0}])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ConfigError, match=rf"optimizer\.{next(iter(numbers))}"):
        HillClimbing([torch.zeros(1)], **numbers)
