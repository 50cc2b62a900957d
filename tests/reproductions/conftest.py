from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml


@pytest.fixture
def at(tmp_path, monkeypatch, undrawn, one_thread):
    """A place to reproduce in: ``quick()`` does all of a quick study, ``study()`` a part of it."""
    from truerisk.launch import launch_training
    from truerisk.verdicts.reproduce import reproduce_claims
    from truerisk.verdicts.reproduction import load_reproduction
    from truerisk.verdicts.runs import Runs

    monkeypatch.chdir(tmp_path)

    def quick(name):
        """The exit code, the page that came of it, and the folder of the study."""
        code = reproduce_claims([name], quick=True)
        return SimpleNamespace(
            code=code,
            page=(tmp_path / "outputs" / "gallery.html").read_text(),
            folder=tmp_path / "outputs" / f"{name}-quick",
        )

    def study(name, claim, *overrides):
        """The verdict on one claim, on the quick study with some overrides."""
        reproduction = load_reproduction(name)
        given = [*reproduction.study_overrides(quick=True), *overrides]
        ended = []
        launch_training(["--multirun", *given], ended)
        made = reproduction.claims[claim]
        runs = Runs.in_folders([outcome.folder for outcome in ended])
        return made.judge_finding(made.measure(runs))

    return SimpleNamespace(quick=quick, study=study)


@pytest.fixture(scope="session")
def study_grids():
    """The grids of a study, as its file has them."""

    def read(name):
        folder = Path(__file__).parents[2] / "conf" / "experiment"
        return yaml.safe_load((folder / f"{name}.yaml").read_text())["hydra"]["sweeper"]["grids"]

    return read
