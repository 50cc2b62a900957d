"""What is done is taken from the index as long as its files are as they were, and only then."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from truerisk.core.stop import Stop
from truerisk.outcome import Outcome
from truerisk.run import RunFolder
from truerisk.sweeps import outcome_index
from truerisk.sweeps.outcome_index import INDEX_FILE, OutcomeIndex
from truerisk.sweeps.sweep_cell import read_outcome

STOP = Stop("halving", 12, {"epoch": 4, "what": "risk", "risk": 0.5, "rank": 3, "among": 9})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs that have finished and diverged, one stopped early, and one that is still going."""
    monkeypatch.setattr(outcome_index, "GRAIN", -1.0)  # their files are as young as can be
    for name, status, stop in (
        ("a-0000000001", "finished", None),
        ("b-0000000002", "finished", STOP),
        ("c-0000000003", "diverged", Stop("divergence", 3, {"what": "loss", "fault": "is nan"})),
        ("d-0000000004", "running", None),
    ):
        run = RunFolder(tmp_path / "s" / name)
        run.path.mkdir(parents=True)
        run.config.write_text("data: {}\nseed: {}\n")
        (run.path / "metadata.json").write_text('{"id": "0"}\n')
        run.summary_file.write_text('{"risk/val": {"value": 0.3, "stderr": 0.1}}\n')
        run.metrics.write_text("step,epoch,name,value\n")
        record = {"status": status, "reason": "", "stop": stop and stop._asdict(), "pid": 1}
        run.status_file.write_text(json.dumps({**record, "host": "elsewhere"}) + "\n")
    return tmp_path / "s"


def read_all(study):
    index = OutcomeIndex(study)
    ends = {f.name[0]: index.read_outcome(f) for f in sorted(study.iterdir()) if f.is_dir()}
    index.write()
    return ends


@pytest.fixture
def looked_at(monkeypatch):
    """The folders that were read."""
    folders = []

    def read(folder):
        folders.append(folder.name[0])
        return read_outcome(folder)

    monkeypatch.setattr(outcome_index, "read_outcome", read)
    return folders


def spell(ends):
    """Outcomes of which nan equals nan."""
    return {name: repr(end) for name, end in ends.items()}


def test_what_is_done_is_read_once(study, looked_at):
    first = read_all(study)
    assert looked_at == ["a", "b", "c", "d"]
    looked_at.clear()
    again = read_all(study)
    assert looked_at == ["d"]
    assert spell(again) == spell(first)
    assert again["a"] == Outcome(0.3, "finished", new=False)
    assert again["b"].stop == STOP and math.isnan(again["c"].value)


def test_it_is_written_where_something_is_new(study):
    read_all(study)
    written = (study / INDEX_FILE).stat()
    read_all(study)
    assert (study / INDEX_FILE).stat().st_ino == written.st_ino


@pytest.mark.parametrize("name", RunFolder.TELLING)
@pytest.mark.parametrize("how", ["changed", "replaced", "lost"])
def test_a_run_with_another_file_is_read_anew(study, looked_at, name, how):
    file = study / "a-0000000001" / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        file.write_bytes(b"PK\x05\x06" + bytes(18))
    read_all(study)
    before = file.stat()
    looked_at.clear()
    if how == "changed":  # in place: of the same size, and with its time set back
        with file.open("r+b") as opened:
            opened.write(b"J")
    elif how == "replaced":
        shutil.copy(file, study / "copy")
        (study / "copy").replace(file)
    if how == "lost":
        file.unlink()
    else:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    end = read_all(study)["a"]
    assert looked_at == ["a", "d"]
    assert repr(end) == repr(read_outcome(file.parents["checkpoints" in name]))


def test_a_deleted_run_is_missing(study):
    read_all(study)
    shutil.rmtree(study / "a-0000000001")
    assert OutcomeIndex(study).read_outcome(study / "a-0000000001").status == "missing"


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-1],
        lambda text: text.replace("0.3", "0.1"),
        lambda text: "\0" * len(text),
    ],
)
def test_a_torn_index_is_made_anew(study, looked_at, harm, capfd):
    first = read_all(study)
    file = study / INDEX_FILE
    whole = file.read_text()
    file.write_text(harm(whole))
    looked_at.clear()
    assert spell(read_all(study)) == spell(first)
    assert looked_at == ["a", "b", "c", "d"] and file.read_text() == whole
    assert capfd.readouterr() == ("", "")


def test_another_version_reads_for_itself(study, looked_at, monkeypatch):
    read_all(study)
    looked_at.clear()
    monkeypatch.setattr(outcome_index, "__version__", "1000")
    read_all(study)
    assert looked_at == ["a", "b", "c", "d"]


def test_what_has_just_changed_is_not_recorded(study, looked_at, monkeypatch):
    monkeypatch.setattr(outcome_index, "GRAIN", 60.0)
    read_all(study)
    assert not (study / INDEX_FILE).exists()


def test_two_commands_keep_what_each_has_read(study, looked_at):
    one, other = OutcomeIndex(study), OutcomeIndex(study)
    one.read_outcome(study / "a-0000000001")
    other.read_outcome(study / "b-0000000002")
    one.write()
    other.write()
    looked_at.clear()
    read_all(study)
    assert looked_at == ["c", "d"]
    assert {path.name for path in study.iterdir() if path.is_file()} == {".claims", ".outcomes"}


def test_a_folder_that_cannot_be_written_has_none(study, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # not by the folder's mode, which says nothing to root
    monkeypatch.setattr(outcome_index, "read_server_time", refuse)
    assert read_all(study)["a"].status == "finished"
    monkeypatch.undo()
    monkeypatch.setattr(Path, "write_text", refuse)
    assert read_all(study)["a"].status == "finished"
    assert not (study / INDEX_FILE).exists()


def test_a_study_that_is_not_there_is_not_made(tmp_path):
    index = OutcomeIndex(tmp_path / "s")
    assert index.read_outcome(tmp_path / "s" / "a-0000000001").status == "missing"
    index.write()
    assert not (tmp_path / "s").exists()
