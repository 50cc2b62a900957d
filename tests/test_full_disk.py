"""A disk that is full from some moment of a run on: one line naming the file, and nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import truerisk
from truerisk.cli import main
from truerisk.core.errors import UserError
from truerisk.logger import csv
from truerisk.result import load_run

TINY = ["data=iris", "data.batch_size=50", "model.width=8", "trainer.max_epochs=1"]
TINY += ["checkpoint_seconds=1000", "regularizer=[]", "threads=1"]
ROOM = 600
"""Bytes that a file may have once the disk is full: a status fits, a checkpoint does not."""

pytestmark = pytest.mark.usefixtures("one_thread")


@contextlib.contextmanager
def full_from(moment, monkeypatch, fill, empty):
    """Let the disk be full from the given write of a run on; yields the names of what is written.

    Files are written aside and renamed, and rows of metrics are appended.
    """
    names = []
    replace, append = os.replace, csv.append_bytes

    def count(name):
        names.append(name)
        if len(names) == moment:
            fill()

    def replaced(source, target):
        count(os.path.basename(target))
        replace(source, target)

    def appended(file, rows):
        count("rows")
        append(file, rows)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(csv, "append_bytes", appended)
        try:
            yield names
        finally:
            empty()


def limit_files(size):
    """Have the system refuse files of more bytes (EFBIG, the signal beside it is ignored)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def end_of(folder, overrides=()):
    """Train, and say how that ended: None, or the message of the error."""
    try:
        truerisk.train([*TINY, "figures=false", *overrides], folder=folder)
    except UserError as error:
        return str(error)
    return None


def test_full_at_every_write_in_turn(tmp_path, monkeypatch, capsys):
    def fill():
        limit_files(ROOM)

    def empty():
        limit_files(resource.RLIM_INFINITY)

    with full_from(0, monkeypatch, fill, empty) as names:
        assert end_of(tmp_path / "whole") is None
    whole = load_run(tmp_path / "whole")
    ends = []
    for moment in range(1, len(names) + 1):
        folder = tmp_path / f"run{moment}"
        with full_from(moment, monkeypatch, fill, empty):
            said = end_of(folder)
        ends.append(said is None)
        err = capsys.readouterr().err
        assert "Traceback" not in err and "Traceback" not in (said or "")
        if said is None:
            run = load_run(folder)
            assert run.status == "finished" and run.summary == whole.summary
            continue
        assert "\n" not in said and "cannot write" in said and "File too large" in said
        if not folder.exists():  # nothing had begun, and nothing is left
            continue
        record = json.loads((folder / "status.json").read_text())
        assert record["status"] == "failed" and str(folder) in record["reason"]
        with full_from(1, monkeypatch, fill, empty), pytest.raises(UserError, match="cannot write"):
            truerisk.train([f"resume={folder}"])
        again = truerisk.train([f"resume={folder}"])
        assert again.status == "finished" and again.summary == whole.summary
    assert len(ends) > 8 and ends[-1] and not ends[0]


SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pytest, torch, truerisk
from test_full_disk import end_of, full_from
torch.set_num_threads(1)
monkeypatch = pytest.MonkeyPatch()
disk = Path({disk!r})
filler = disk / "filler"

def fill():
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

def empty():
    filler.unlink(missing_ok=True)

os.mkdir(disk / "whole")
with full_from(0, monkeypatch, fill, empty) as names:
    assert end_of(disk / "whole") is None
shown = ["figures=true"]
# as a run begins, in its checkpoint, and when all is measured but the figure and the status
for moment in (2, 8, len(names) - 1, len(names)):
    folder = disk / f"run{{moment}}"
    with full_from(moment, monkeypatch, fill, empty):
        said = end_of(folder, shown)
    status = None
    if folder.exists():
        status = json.loads((folder / "status.json").read_text())["status"]
    if status == "failed":
        truerisk.train([f"resume={{folder}}"])
    print(json.dumps([names[moment - 1], said, status]), flush=True)
"""


def test_a_small_file_system_fills_up(tmp_path):
    """The kernel itself says that there is no room; only a user's own name space may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = SCRIPT.format(tests=str(Path(__file__).parent), disk=str(disk))
    (tmp_path / "script.py").write_text(script)
    mount = f"mount -t tmpfs -o size=8m tmpfs {disk} && exec {sys.executable} {tmp_path}/script.py"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("name spaces of a user's own are not allowed here")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(ends) == 4
    for name, said, status in ends:
        if said is None:
            assert status == "finished", name
        else:
            assert "No space left on device" in said and "\n" not in said, name
            assert status in ("failed", None), name
    # the run that has measured everything counts as finished, though no file can be made any more
    assert ends[-1][1:] == [None, "finished"] and "no figures: cannot write" in done.stderr


@pytest.mark.parametrize("launcher", ["basic", "vectorized"])
def test_a_sweep_on_a_full_disk(tmp_path, monkeypatch, capsys, launcher):
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "-m",
        *TINY,
        "figures=false",
        "report=false",
        "study=s",
        "seed=1,2",
        f"hydra/launcher={launcher}",
    ]

    def fill():
        limit_files(ROOM)

    def empty():
        limit_files(resource.RLIM_INFINITY)

    with full_from(9, monkeypatch, fill, empty):
        assert main(command) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and "cannot write" in err and "File too large" in err
    told = {json.loads(f.read_text())["status"] for f in Path("outputs/s").glob("*/status.json")}
    assert told == {"failed"}
    assert main(command) == 0
    assert "2 finished" in capsys.readouterr().out
