"""Launchers of others may lose a job; the folders tell how the rest stand."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.plugins import Plugins

from truerisk.run import RunFolder
from truerisk.sweeps.launcher.launcher import HydraPlugin
from truerisk.sweeps.sweep_cell import SweepCell

EARLIER = Path(__file__).parents[1] / "earlier_runs" / "finished"


@pytest.fixture
def launched(monkeypatch):
    """Launch cells with a plugin that loses a job; their outcomes, and what it was to run."""
    seen = []

    def lose(overrides, initial_job_idx):
        seen.extend(overrides)
        raise RuntimeError("job 7 was cancelled\nand more")

    def instantiate(self, hydra_context, task_function, config):
        return SimpleNamespace(launch=lose)

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)

    def launch(cells):
        jobs = SimpleNamespace(context=None, task=None, shared=None)
        return HydraPlugin().launch(cells, jobs), seen

    return launch


def test_a_lost_job_leaves_the_others_outcomes(launched, tmp_path, capsys):
    folders = [tmp_path / f"seed={seed}-0123456789" for seed in (1, 2, 3)]
    shutil.copytree(EARLIER, folders[0])
    folders[1].mkdir()
    (folders[1] / "config.yaml").touch()
    RunFolder(folders[1]).set_status("running")
    cells = [SweepCell(("a=1",), (), {}, folder) for folder in folders]
    outcomes, seen = launched(cells)
    assert [o.status for o in outcomes] == ["finished", "failed", "failed"]
    assert outcomes[1].reason == "RuntimeError: job 7 was cancelled"
    assert capsys.readouterr().err == "error: RuntimeError: job 7 was cancelled\n"
    assert seen[0] == ["a=1", "hydra.sweep.subdir='seed=1-0123456789'"]
