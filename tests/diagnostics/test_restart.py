"""A run that was cut off goes on to the numbers and arrays of one that was not."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from omegaconf import OmegaConf

import truerisk
from truerisk.diagnostics import Spectrum
from truerisk.diagnostics.figure_arrays import keep_row, read_arrays, write_arrays

RECIPE = [
    "data=iris",
    "data.batch_size=30",
    "model.width=4",
    "trainer.max_epochs=3",
    "checkpoint_seconds=0",
    "diagnostics=[curvature,spectrum,taylor,flatness,landscape,critical_point]",
    "diagnostics.curvature.every.steps=2",
    "diagnostics.spectrum.every.steps=2",
    "diagnostics.landscape.every.steps=1",
    "diagnostics.landscape.points=3",
    "diagnostics.spectrum.steps=8",
]


def cut_off(folder, step):
    """Run until a look, and a checkpoint behind it."""
    look = Spectrum.look

    def fatal(self, snapshot):
        if snapshot.step == step:
            nothing = np.zeros((4, 8))
            keep_row(snapshot, self.name, nodes=nothing, weights=nothing)
            raise KeyboardInterrupt
        return look(self, snapshot)

    with mock.patch.object(Spectrum, "look", fatal), pytest.raises((KeyboardInterrupt, SystemExit)):
        truerisk.train(RECIPE, folder=folder)


def test_a_run_cut_off_in_a_look_goes_on_as_if_it_had_not_been(tmp_path):
    with mock.patch("truerisk.show.figure.draw_result"):
        whole = truerisk.train(RECIPE, folder=tmp_path / "whole")
        cut_off(tmp_path / "cut", 6)
        truerisk.train(OmegaConf.create({"resume": str(tmp_path / "cut")}))
    one, two = (tmp_path / name for name in ("whole", "cut"))
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()
    files = sorted(f.name for f in whole.run.figures.glob("*"))
    assert files == sorted(f.name for f in (two / "figures").glob("*"))
    assert len(files) == 4
    for name in files:
        mine, theirs = (read_arrays(folder / "figures" / name) for folder in (one, two))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


def test_arrays_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "figures" / "x.npz"
    write_arrays(path, {"a": [1.0]})
    with mock.patch("numpy.savez", side_effect=OSError), pytest.raises(OSError):
        write_arrays(path, {"a": [2.0]})
    assert read_arrays(path)["a"].tolist() == [1.0]
    assert read_arrays(tmp_path / "none.npz") == {}
