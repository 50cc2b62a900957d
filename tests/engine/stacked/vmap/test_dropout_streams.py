from __future__ import annotations

import pytest
import torch

from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_units_are_dropped_with_their_probability_and_the_mean_stays(p):
    x = torch.ones(2, 500, 400)
    kept = DropoutStreams([3, 4]).drop_units(x, torch.tensor([p, 0.3]))
    share = (kept[0] == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / 200_000) ** 0.5 + 1e-9)
    assert kept[0].unique().tolist() == pytest.approx([0, 1 / (1 - p)] if p else [1], rel=1e-4)


def test_masks_are_independent_between_units_and_members():
    masks = DropoutStreams([1, 2])
    first, second = (masks.drop_units(torch.ones(2, 100_000), 0.5) - 1 for _ in range(2))
    pairs = [(first[0], first[1]), (first[0], second[0]), (first[0][1:], first[0][:-1])]
    assert all(abs((a * b).mean().item()) < 5 / 100_000**0.5 for a, b in pairs)


def test_streams_go_on_where_they_were_saved():
    masks = DropoutStreams([1, 2])
    masks.draw(7)
    saved, after = masks.state_dict(), masks.draw(9)
    again = DropoutStreams([5, 6])
    again.load_state_dict(saved)
    assert torch.equal(again.draw(9), after)
