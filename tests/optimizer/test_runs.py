"""Whole runs of the optimizers with a search or with curvature: they descend and can be cut."""

from __future__ import annotations

import os
import signal
from unittest import mock

import pytest
import torch
from omegaconf import OmegaConf

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.engine.step import Step

SECOND = ["gauss_newton", "kfac", "newton", "newton_cg"]
NAMES = [
    *SECOND,
    "adahessian",
    "gd_backtracking",
    "gd_exact",
    "gd_wolfe",
    "hill_climbing",
    "lbfgs",
    "lbfgs_backtracking",
    "sgd_armijo",
    "shampoo",
    "soap",
    "sophia",
]
LARGE = sorted(set(NAMES) - {"newton"})
"""Those that serve a model of the default recipe's size."""
LOW = sorted(set(NAMES) - set(SECOND))
"""Those that serve a precision below single."""
UNPROJECTED = {*SECOND, *NAMES} - {"adahessian", "shampoo", "soap", "sophia"}
"""Those that choose steps by a J which a projection would change."""
TINY = ["data=iris", "model.width=8", "trainer.max_epochs=6", "checkpoint_seconds=1000"]
STRICT = {"gd_backtracking", "gd_exact", "gd_wolfe", "lbfgs_backtracking"}
"""Those that are wrong on mini-batches."""
FULL = STRICT | {"gauss_newton", "hill_climbing", "lbfgs", "newton", "newton_cg"}


def overrides(name):
    batch = "full" if name in FULL else "30"
    return [*TINY, f"optimizer={name}", f"data.batch_size={batch}"]


@pytest.mark.parametrize("name", LARGE)
def test_no_default_diverges(name, run, series):
    """On a part of the default recipe's data; J never leaves the height it starts from."""
    result = run(f"optimizer={name}", "data.num_train=800", "trainer.max_epochs=3")
    risks = series(result, "risk/train")
    assert result.status == "finished"
    assert risks.max() <= 1.02 * risks[0] and risks.iloc[-1] < risks[0]


def test_newton_refuses_the_default_recipe(run):
    with pytest.raises(ConfigError, match=r"15210 × 15210.*newton_cg"):
        run("optimizer=newton")


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "bf16-mixed") for name in LOW), *((name, "64-true") for name in NAMES)],
)
def test_precisions_and_regularizers(name, precision, run, series):
    projections = "" if name in UNPROJECTED else "max_norm,"
    given = [f"regularizer=[l2,dropout,mixup,{projections}spectral_norm]"]
    if name == "newton":  # a whole step leads to the minimum under one dropout mask
        given += ["optimizer.damping=1"]
    if name == "lbfgs":  # it goes far along one mask, and no projection holds it back
        given += ["optimizer.max_iter=2"]
    result = run(*overrides(name), *given, f"trainer.precision={precision}")
    risks = series(result, "risk/train")
    assert result.status == "finished" and risks.max() < 1.3 * risks[0]


def stopped_at(folder, name, step, *more):
    """A run that is asked to stop after some step, in mid-epoch where it has mini-batches."""
    taken = Step.__call__

    def stepping(instance, batches):
        taken(instance, batches)
        if instance.state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with (
        mock.patch.object(Step, "__call__", stepping),
        mock.patch("truerisk.show.figure.draw_result"),
    ):
        return truerisk.train([*overrides(name), *more], folder=folder)


@pytest.mark.parametrize("name", NAMES)
def test_taken_up_again_to_the_bit(name, run, tmp_path, last_weights):
    noisy = "regularizer=[dropout,input_noise]"
    cut = stopped_at(tmp_path / "cut", name, 4, noisy)
    assert cut.status == "interrupted"
    with mock.patch("truerisk.show.figure.draw_result"):
        resumed = truerisk.train(OmegaConf.create({"resume": str(tmp_path / "cut")}))
    whole = run(*overrides(name), noisy)
    assert resumed.status == whole.status == "finished"
    assert resumed.run.metrics.read_bytes() == whole.run.metrics.read_bytes()
    mine, theirs = last_weights(resumed), last_weights(whole)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", sorted(STRICT))
def test_mini_batches_are_refused(name, run):
    with pytest.raises(ConfigError, match=r"data\.batch_size=full"):
        run(*TINY, f"optimizer={name}", "data.batch_size=30")


@pytest.mark.parametrize("name", ["gd_wolfe", "hill_climbing"])
def test_looks_within_a_step_are_at_one_function(name, stepping, micro_batches):
    """Dropout, batch norm and spectral norm are as they were at the first look."""
    given = ["data=iris", "model.width=6", "model.normalization=batch", f"optimizer={name}"]
    recipe, step = stepping(*given, "regularizer=[dropout,spectral_norm]")
    recipe.model.train()
    (micro,) = micro_batches(recipe, 1)
    closure = step.make_closure(micro)
    value = closure()
    buffers = {k: b.clone() for k, b in recipe.model.named_buffers()}
    assert [closure(gradient=False).item(), closure().item()] == [value.item()] * 2
    assert all(torch.equal(b, buffers[k]) for k, b in recipe.model.named_buffers())
