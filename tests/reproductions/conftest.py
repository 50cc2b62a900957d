from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture
def at(tmp_path, monkeypatch, undrawn, one_thread):
    """A place to reproduce in: ``quick()`` does all of a quick study, ``study()`` a part of it."""
    from truerisk.launch import launch_training
    from truerisk.verdicts import claims_of
    from truerisk.verdicts import reproduce as command
    from truerisk.verdicts.reproduction import load
    from truerisk.verdicts.runs import Runs

    monkeypatch.chdir(tmp_path)

    def quick(name):
        """The exit code, the page that came of it, and the folder of the study."""
        code = command.reproduce([name], quick=True)
        return SimpleNamespace(
            code=code,
            page=(tmp_path / "outputs" / "gallery.html").read_text(),
            folder=tmp_path / "outputs" / f"{name}-quick",
        )

    def study(name, claim, *overrides):
        """The verdict on one claim, on the quick study with some overrides."""
        reproduction = load(name)
        given = [*reproduction.overrides(quick=True), *overrides]
        launch_training(["--multirun", *given])
        made = claims_of(reproduction.module)[claim]
        runs = Runs.at(command.cells(given))
        return made.judge(made.measure(runs))

    return SimpleNamespace(quick=quick, study=study)
