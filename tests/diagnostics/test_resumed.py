"""A run that was killed logs what it would have logged."""

from __future__ import annotations

from functools import partial

import pytest
from omegaconf import OmegaConf

import truerisk
from truerisk.config.parts import conf_dir, list_options

OTHERS = ("attention", "recurrence")
"""Those that look at layers which an MLP does not have."""
ALL = [name for name in list_options("diagnostics", (conf_dir(),)) if name not in OTHERS]
RECIPE = [
    "model.normalization=batch",
    "regularizer=[dropout,mixup,early_stopping]",
    "data.batch_size=23",
    "trainer.max_epochs=2",
    f"diagnostics=[{','.join(ALL)}]",
    *(f"diagnostics.{name}.every.steps=3" for name in ALL if name != "lr_range"),
    "diagnostics.landscape.points=3",
    "diagnostics.spectrum.steps=8",
]
"""Five steps an epoch, with looks in the middle of both."""


def test_killed_after_any_step(tiny, killed_after, tmp_path, monkeypatch):
    tiny(tmp_path / "whole", RECIPE)
    wanted = (tmp_path / "whole" / "metrics.csv").read_text()
    for fatal in (3, 4, 6):
        folder = tmp_path / str(fatal)
        killed_after(fatal, partial(tiny, folder, RECIPE))
        truerisk.train(OmegaConf.create({"resume": str(folder)}))
        assert (folder / "metrics.csv").read_text() == wanted


@pytest.mark.parametrize("name", ["update_size"])
def test_the_last_step_is_looked_at(name, tiny, tmp_path):
    result = tiny(tmp_path / "run", [f"diagnostics=[{name}]", f"diagnostics.{name}.every.epochs=9"])
    rows = result.history[result.history.name == f"{name}/distance"]
    assert list(rows.step) == [1, result.history.step.max()]
