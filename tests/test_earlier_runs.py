"""Run folders of version 0.1.0's first layout are read, evaluated and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import truerisk
from truerisk.evaluate import evaluate

KEPT = Path(__file__).parent / "earlier_runs"


@pytest.fixture
def copied(tmp_path):
    """A copy of a kept folder, and the summary that the version which wrote it came to."""

    def copy(name):
        folder = shutil.copytree(KEPT / name, tmp_path / name)
        return folder, json.loads((folder / "expected.json").read_text())

    return copy


def check_summary(summary, expected):
    # what learning nothing comes to is told beside them now
    assert {n for n in summary if not n.startswith("constant/")} == expected.keys()
    for name, measured in expected.items():
        assert summary[name].value == pytest.approx(measured["value"], rel=1e-5, abs=1e-7)
        assert summary[name].epoch == measured["epoch"]


def test_a_finished_run_is_read_and_measured_again(copied):
    folder, expected = copied("finished")
    run = truerisk.load_run(folder)
    assert run.status == "finished"
    check_summary(run.summary, expected)
    assert {"risk/val", "gradient_flow/ratio"} <= set(run.history.name)
    assert sum(p.numel() for p in run.model.parameters()) == 35
    again = evaluate(folder).summary
    assert again["risk/test"].value == pytest.approx(expected["risk/test"]["value"], rel=1e-5)


@pytest.mark.parametrize("name", ["interrupted", "stacked"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers(copied, name, one_thread):
    folder, expected = copied(name)
    result = truerisk.train([f"resume={folder}"])
    assert result.status == "finished"
    check_summary(result.summary, expected)


def test_the_one_path_that_has_moved_leads_on():
    from truerisk.config.targets import locate_target

    path = "truerisk.sweeps.launcher.vectorized_slurm.VectorizedSlurm"
    assert locate_target(path, "hydra.launcher._target_").__name__ == "VectorizedSlurm"
