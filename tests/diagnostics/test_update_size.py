"""Steps against what the optimizer is known to do."""

from __future__ import annotations

import math

import pytest
import torch

TINY = [
    "data=iris",
    "data.batch_size=30",
    "model.width=8",
    "trainer.precision=64-true",
    "trainer.max_epochs=2",
    "diagnostics=[update_size]",
    "diagnostics.update_size.every.steps=1",
]


def columns(result):
    history = result.history[result.history.name.str.startswith("update_size/")]
    return history.pivot(index="step", columns="name", values="value").rename(
        columns=lambda name: name.removeprefix("update_size/")
    )


def weights(state):
    return torch.cat([p.flatten() for p in state.values()])


@pytest.mark.parametrize("clip", ["null", "0.1"])
def test_plain_descent_has_its_own_learning_rate(clip, run, assembled, last_weights):
    rule = ["optimizer=sgd", "optimizer.lr=0.03", f"step.clip.norm={clip}"]
    result = run(*TINY, *rule)
    found = columns(result)
    assert list(found.index) == list(range(1, 7))
    torch.testing.assert_close(
        torch.tensor(found.learning_rate.to_numpy()), torch.full((6,), 0.03).double()
    )
    start = weights(dict(assembled(*TINY, *rule).model.state_dict()))
    distance = (weights(last_weights(result)) - start).norm().item()
    assert found.distance.iloc[-1] == pytest.approx(distance, rel=1e-12)
    share = distance / start.norm().item()
    assert found.distance_share.iloc[-1] == pytest.approx(share, rel=1e-12)


def test_the_first_step_of_adam_moves_every_weight_by_lr(run, assembled):
    smooth = [*TINY, "model.activation=tanh"]
    found = columns(run(*smooth, "optimizer=adam", "optimizer.lr=0.01", "optimizer.eps=1e-300"))
    layer = assembled(*smooth).model.output
    count = sum(p.numel() for p in layer.parameters())
    norm = math.sqrt(sum(p.square().sum().item() for p in layer.parameters()))
    assert found["ratio/output"].iloc[0] == pytest.approx(0.01 * math.sqrt(count) / norm)


def test_without_a_gradient_there_is_no_rate(run):
    rule = ["optimizer=hill_climbing", "data.batch_size=full"]
    found = columns(run(*TINY, *rule))
    assert "learning_rate" not in found and found["distance"].iloc[-1] > 0


def test_on_a_test_function(run):
    path = ["data=none", "model=quadratic_bowl", "optimizer=gd", "trainer.max_epochs=3"]
    found = columns(run(*path, *TINY[-2:], "optimizer.lr=0.125"))
    assert found.learning_rate.to_list() == pytest.approx([0.125] * 3) and "ratio/w" in found
