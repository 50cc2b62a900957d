from __future__ import annotations

import pytest

from truerisk.cli import main
from truerisk.result import load_run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(tiny, here):
    """Run a sweep of tiny recipes here, into the study ``s``."""

    def run(*overrides):
        return main(["train", "-m", *tiny.overrides, "study=s", "report=false", *overrides])

    return run


@pytest.fixture
def cells(here):
    """The runs of the study ``s``, by the readable part of their folders' names."""

    def read():
        folders = sorted((here / "outputs" / "s").glob("*-*/"))
        return {folder.name.rpartition("-")[0]: load_run(folder) for folder in folders}

    return read
