from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from truerisk.config.compose import compose, resolve_config
from truerisk.engine.stacked.grouping import group_configs
from truerisk.regularizer.base import Regularizer


@pytest.fixture(scope="module")
def grouped():
    def grouped(*recipes):
        return group_configs([resolve_config(compose(recipe.split())) for recipe in recipes])

    return grouped


STACKING = [
    ("seed=1", "seed.init=3", "seed.order=2 seed.noise=1"),
    ("optimizer.lr=0.1", "optimizer.betas=[0.5,0.9]", "optimizer.weight_decay=0.1"),
    ("initializer=orthogonal", "initializer=kaiming_normal", "initializer.gain=2"),
    ("scheduler=cosine", "scheduler=step", "scheduler.warmup=0.1"),
    ("loss.label_smoothing=0.1", "data.label_noise=0.2"),
    ("step.clip.norm=1", "step.clip.norm=2"),
    ("regularizer=[l2]", "regularizer=[l2] regularizer.l2.coefficient=0.1"),
    ("regularizer=[dropout]", "regularizer=[dropout] regularizer.dropout.p=0.1"),
]


@pytest.mark.parametrize("recipes", STACKING)
def test_cells_that_differ_in_numbers_are_one_group(grouped, recipes):
    assert [group.rows for group in grouped(*recipes)] == [list(range(len(recipes)))]


SEPARATE = [
    ("model.width=10", "model.width=20"),
    ("optimizer=adam", "optimizer=adamw"),
    ("optimizer=nesterov", "optimizer=momentum"),
    ("optimizer=adam", "optimizer=adam optimizer.amsgrad=true"),
    ("data.batch_size=10", "data.batch_size=20"),
    ("step.clip.norm=1", "step.clip.value=1"),
    ("regularizer=[l2]", "regularizer=[l1]"),
    ("trainer.max_epochs=1", "trainer.max_epochs=2"),
    ("trainer.precision=64-true", "trainer.precision=32-true"),
]


@pytest.mark.parametrize("recipes", SEPARATE)
def test_cells_that_differ_in_structure_are_not(grouped, recipes):
    assert [group.rows for group in grouped(*recipes)] == [[0], [1]]
    assert {group.why for group in grouped(*recipes)} == {"no other cell has its structure"}


ALONE = {
    "optimizer=muon": "truerisk.optimizer.Muon has no update on stacked weights",
    "optimizer=sam": "truerisk.optimizer.SAM has no update on stacked weights",
    "data=none model=rosenbrock": "data=none has no samples to stack",
    "regularizer=[spectral_norm]": "regularizer=spectral_norm changes its buffers in place",
    "compile=true": "compile=true compiles one model",
    "recompute=true": "recompute=true saves the memory of one model",
    "trainer.devices=2": "trainer.devices=2",
    "trainer.max_time=00:00:01:00": "trainer.max_time follows the clock",
    "+optimizer.maximize=true": "optimizer.maximize has no update on stacked weights",
}


@pytest.mark.parametrize("recipe", ALONE)
def test_what_cannot_stack_says_why(grouped, recipe):
    made = grouped(recipe, f"{recipe} seed=1")
    assert [group.rows for group in made] == [[0], [1]]
    assert all(group.why.startswith(ALONE[recipe]) for group in made)


class Bringer(Regularizer):
    def callbacks(self):
        return []


def test_a_regularizer_with_lightning_callbacks_runs_alone(grouped, monkeypatch):
    monkeypatch.setitem(sys.modules, "bringer", SimpleNamespace(Bringer=Bringer))
    recipe = "+regularizer.mine={_target_:bringer.Bringer}"
    groups = grouped(recipe, f"{recipe} seed=1")
    assert {group.why for group in groups} == {
        "regularizer=mine brings Lightning callbacks, which look at one model"
    }
