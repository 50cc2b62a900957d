"""The size of a forward pass, and the threads it gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core import threads
from truerisk.model import MLP


@pytest.mark.parametrize(
    ("model", "x", "count"),
    [
        (nn.Linear(3, 2), torch.zeros(5, 3), 5 * 3 * 2),
        (nn.Linear(3, 2), torch.zeros(5, 7, 3), 5 * 7 * 3 * 2),
        (nn.Conv1d(3, 4, 5, padding=2), torch.zeros(2, 3, 10), 2 * 10 * (3 * 4 * 5)),
        (nn.Conv2d(3, 4, 3, stride=2), torch.zeros(2, 3, 9, 9), 2 * 4 * 4 * (3 * 4 * 9)),
        (nn.Conv1d(4, 4, 3, groups=2), torch.zeros(1, 4, 5), 3 * (4 * 2 * 3)),
        (nn.GRU(3, 4, batch_first=True), torch.zeros(2, 6, 3), 2 * 6 * 3 * (3 + 4) * 4),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.zeros(5, 3), 60),
        (MLP((4,), 3, width=10, depth=2), torch.zeros(7, 4), 7 * (4 * 10 + 10 * 10 + 10 * 3)),
    ],
    ids=["linear", "places", "conv1d", "conv2d", "grouped", "gru", "norm", "mlp"],
)
def test_multiplications(model, x, count):
    assert threads.count_multiplications(model, x) == count


def test_a_model_of_another_precision_is_counted():
    assert threads.count_multiplications(nn.Linear(3, 2).double(), torch.zeros(5, 3)) == 30


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_no_trace(training):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train(training)
    before, noise = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    threads.count_multiplications(model, torch.ones(5, 3))
    assert model.training is training and model[1].training is training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), noise)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_second_thread_is_for_large_forward_passes(monkeypatch):
    monkeypatch.setattr(threads, "count_cores", lambda: 8)
    wide = nn.Linear(1000, 1000)
    assert threads.choose_threads(wide, torch.zeros(99, 1000)) == 1
    assert threads.choose_threads(wide, torch.zeros(100, 1000)) == 8


def test_limited_gives_the_threads_back():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), threads.limit_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("asked", "used"), [("2", 2), ("auto", 1)])
def test_a_run_computes_with_the_threads_asked_for(run, monkeypatch, asked, used):
    seen, forward = set(), MLP.forward

    def noted(model, x):
        if model.training:
            seen.add(torch.get_num_threads())
        return forward(model, x)

    monkeypatch.setattr(MLP, "forward", noted)
    run("data=iris", "model.width=4", "trainer.max_epochs=1", f"threads={asked}")
    assert seen == {used}
    assert torch.get_num_threads() == 1
