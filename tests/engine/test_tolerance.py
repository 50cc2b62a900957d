"""Stopping by tolerance: when, with what reason, and what it refuses."""

from __future__ import annotations

import itertools
import os
import signal
from unittest import mock

import pytest
from omegaconf import OmegaConf

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.engine.step import Step

SOLVABLE = ["data=wine", "model=linear", "regularizer=l2", "trainer.precision=64-true"]
SOLVABLE += ["optimizer=gd", "optimizer.lr=0.5", "trainer.max_epochs=60"]


def series_of(result, name):
    history = result.history
    return list(history[history.name == name].value)


def test_a_small_gradient_ends_the_run(run, capsys):
    whole = run(*SOLVABLE)
    norms = series_of(whole, "grad_norm")
    assert (whole.status, whole.reason, len(norms)) == ("finished", "", 60)
    epsilon = norms[20] * 1.0001
    result = run(*SOLVABLE, f"stop.gradient_norm={epsilon}")
    assert series_of(result, "grad_norm") == norms[:21]
    assert result.status == "finished"
    assert result.reason.startswith(f"‖∇J‖ = {norms[20]:.3g} is at most stop.gradient_norm=")
    result.report()
    assert f"stopped early: {result.reason}" in capsys.readouterr().out


def test_a_small_decrease_ends_the_run(run):
    given = [*SOLVABLE, "risk.train_samples=106"]
    j = series_of(run(*given), "objective")  # of all 106 samples: J where each step began
    shares = [(before - after) / after for before, after in itertools.pairwise(j)]
    epsilon = shares[20] * 1.0001
    assert all(share > epsilon for share in shares[:20])
    result = run(*given, f"stop.relative_decrease={epsilon}")
    assert series_of(result, "objective") == j[:23]  # 22 steps saw the fall from j[20] to j[21]
    assert "stop.relative_decrease" in result.reason


def test_rising_is_no_decrease(run):
    """GD with too long a step: J rises in the first epoch, and falls later."""
    given = [*SOLVABLE, "risk.train_samples=106", "optimizer.lr=30", "trainer.max_epochs=4"]
    j = series_of(run(*given), "objective")
    assert j[0] < j[1]
    result = run(*given, "stop.relative_decrease=1e-9")
    assert series_of(result, "objective") == j


def test_the_last_epoch_is_measured(run):
    result = run(*SOLVABLE, "stop.gradient_norm=0.05", "risk.every=1000")
    history = result.history
    assert list(history[history.name == "objective"].epoch) == [0, result.history.epoch.max()]
    assert 1 < result.history.epoch.max() < 60


def test_accumulated_halves_are_one_step(run):
    given = [*SOLVABLE, "stop.gradient_norm=0.05", "risk.every=1000"]
    ends = [run(*given, f"step.accumulate={n}").history.epoch.max() for n in (1, 2)]
    assert ends[0] == ends[1] < 60


def test_a_run_taken_up_again_ends_where_it_should(run, tmp_path):
    given = [*SOLVABLE, "stop.relative_decrease=1e-3", "checkpoint_seconds=1000"]
    whole = run(*given)
    last = whole.history.epoch.max()
    for step in (1, int(last) - 1, int(last)):
        folder, taken = tmp_path / str(step), Step.__call__

        def stepping(instance, batches, step=step, taken=taken):
            taken(instance, batches)
            if instance.state.step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        with mock.patch("truerisk.show.figure.draw_result"):
            with mock.patch.object(Step, "__call__", stepping):
                assert truerisk.train(given, folder=folder).status == "interrupted"
            result = truerisk.train(OmegaConf.create({"resume": str(folder)}))
        assert (result.status, result.reason) == ("finished", whole.reason)
        assert result.run.metrics.read_bytes() == whole.run.metrics.read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["optimizer=sgd", "stop.gradient_norm=1e-3"], r"data\.batch_size=full"),
        (["optimizer=sgd", "stop.relative_decrease=1e-3"], r"data\.batch_size=full"),
        (["optimizer=hill_climbing", "stop.gradient_norm=1e-3"], "computes gradients"),
        (["optimizer=gd", "stop.gradient_norm=0"], r"stop\.gradient_norm"),
        (["optimizer=gd", "stop.gradient=1"], "gradient_norm"),
    ],
)
def test_refusals(given, message, run):
    with pytest.raises(ConfigError, match=message):
        run("data=iris", *given)
