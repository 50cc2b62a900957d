"""Launchers of others may lose a job; the folders tell how the rest stand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from truerisk.run import RunFolder
from truerisk.sweeps.launcher.launcher import RESTARTS, HydraPlugin
from truerisk.sweeps.sweep_cell import SweepCell


@pytest.fixture
def launched(monkeypatch):
    """Launch cells with a plugin that loses a job; what it was configured with, and outcomes."""
    seen = {}

    def lose(overrides, initial_job_idx):
        seen["overrides"] = overrides
        raise RuntimeError("job 7 was cancelled\nand more")

    def instantiate(self, hydra_context, task_function, config):
        seen["config"] = config.hydra.launcher
        return SimpleNamespace(launch=lose)

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)

    def launch(cells, *hydra, **node):
        overrides = {"hydra": list(hydra)}
        shared = OmegaConf.create({"hydra": {"launcher": node, "overrides": overrides}})
        jobs = SimpleNamespace(context=None, task=None, shared=shared)
        return HydraPlugin().launch(cells, jobs), seen

    return launch


def test_a_lost_job_leaves_the_others_outcomes(launched, tmp_path, capsys):
    folders = [tmp_path / f"seed={seed}-0123456789" for seed in (1, 2, 3)]
    for folder, status in zip(folders, ("finished", "running"), strict=False):
        folder.mkdir()
        (folder / "config.yaml").touch()
        RunFolder(folder).set_status(status)
    cells = [SweepCell(("a=1",), (), {}, folder) for folder in folders]
    outcomes, seen = launched(cells, n_jobs=2)
    assert [o.status for o in outcomes] == ["finished", "failed", "failed"]
    assert outcomes[1].reason == "RuntimeError: job 7 was cancelled"
    assert capsys.readouterr().err == "error: RuntimeError: job 7 was cancelled\n"
    assert seen["overrides"][0] == ["a=1", "hydra.sweep.subdir='seed=1-0123456789'"]


def test_jobs_at_their_time_limit_go_back_in_line(launched, tmp_path):
    cells = [SweepCell(("a=1",), (), {}, tmp_path / "a=1-0123456789")]
    assert launched(cells, max_num_timeout=0)[1]["config"].max_num_timeout == RESTARTS
    given = launched(cells, "hydra.launcher.max_num_timeout=0", max_num_timeout=0)
    assert given[1]["config"].max_num_timeout == 0
    assert "max_num_timeout" not in launched(cells, n_jobs=2)[1]["config"]
