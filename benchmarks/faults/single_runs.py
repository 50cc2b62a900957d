"""Runs that are killed, torn or out of room at every write, and files that are damaged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.faults.kills import Tally, Verdict, Work, kill_everywhere, run_forked, spread
from benchmarks.faults.stacked_ends import judge_stack

CELL = [
    *("data=iris", "model.width=8", "trainer.max_epochs=2", "threads=1"),
    *("study=s", "report=false", "figures=false", "checkpoint_seconds=0", "seed=1"),
]
RECIPES = {
    "dropout, EMA": ["regularizer=[dropout,ema]"],
    "batch norm": ["model.normalization=batch"],
    "muon": ["optimizer=muon"],
    "L-BFGS": ["optimizer=lbfgs", "data.batch_size=full"],
    "SAM": ["optimizer=sam"],
    "mixup, EMA": ["regularizer=[mixup,ema]"],
    "K-FAC": ["optimizer=kfac"],
    "Prodigy": ["optimizer=prodigy"],
}
ROOM = 600
"""Bytes that a file may have once the disk is full: a status fits, a checkpoint does not."""
FILES = ("config.yaml", "metadata.json", "metrics.csv", "summary.json", "status.json")
FILES += ("checkpoints/last.ckpt", "checkpoints/best.ckpt")
HARMS = ("missing", "empty", "half", "junk", "list", "folder")


def train_with(*overrides: str) -> Work:
    """Return the work of a run, or of what is left of it; a study of one goes on by itself."""
    from truerisk.cli import main

    size = [] if any("batch_size" in text for text in overrides) else ["data.batch_size=50"]
    return lambda folder: main(["train", "-m", *CELL, *size, *overrides])


def act_at(moment: int, act: Callable[[Any, bytes | None], None], work: Work) -> Work:
    """Return work that does something before its so many-th write; for a fork, which is lost then.

    Args:
        moment: counted from 1; files are written aside and renamed, rows of metrics appended.
        act: is called with the file that is to be renamed and None, or with that and the rows.
        work: what writes.
    """
    from truerisk.logger import csv

    replace, append, count = os.replace, csv.append_bytes, 0

    def meet(file: Any, rows: bytes | None) -> None:
        nonlocal count
        count += 1
        Path("writes").write_text(str(count))  # what is counted outlives no fork
        if count == moment:
            act(file, rows)

    def replaced(source: Any, target: Any, **options: Any) -> None:
        meet(source, None)
        replace(source, target, **options)

    def appended(file: Any, rows: bytes) -> None:
        meet(file, rows)
        append(file, rows)

    def do(folder: Path) -> int | None:
        renames = mock.patch.object(os, "replace", replaced)
        with renames, mock.patch.object(csv, "append_bytes", appended):
            return work(folder)

    return do


def tear(file: Any, rows: bytes | None) -> None:
    """Leave the first half of what was to be written, and end by SIGKILL."""
    if rows is None:
        os.truncate(file, os.path.getsize(file) // 2)
    else:
        os.write(file, rows[: len(rows) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(file: Any, rows: bytes | None) -> None:
    """Have the system refuse files of more bytes from here on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))


def break_writes(
    name: str, act: Callable[[Any, bytes | None], None], place: Path, most: int
) -> Tally:
    """Let every write of a run in turn go wrong, give the command again, and judge what is left."""
    work, whole = train_with("regularizer=[dropout,ema]"), place / "whole"
    if run_forked(act_at(0, act, work), whole).code:
        raise RuntimeError(f"{name}: {(place / 'whole.said').read_text()}")
    writes, kills, verdicts, places = int((whole / "writes").read_text()), 0, [], []
    for moment in spread(range(1, writes + 1), most):
        folder = place / str(moment)
        kills += run_forked(act_at(moment, act, work), folder).code != 0
        told = "Traceback" not in (place / f"{moment}.said").read_text()
        again = run_forked(work, folder)
        right = told and again.code == 0
        verdicts.append(judge_stack(folder, whole) if right else Verdict(lost=1))
        if any(verdicts[-1]):
            places.append(f"{name}: write {moment} of {writes}")
    sums = [sum(column) for column in zip(*verdicts, strict=True)]
    return Tally(name, kills, *sums, places=tuple(places))


def harm_file(path: Path, how: str) -> bytes | None:
    """Damage a file in one of the ways of `HARMS`; gives what it holds then, if it is there."""
    held = path.read_bytes()
    path.unlink()
    harmed = {"empty": b"", "half": held[: len(held) // 2], "junk": b"\xff{", "list": b"[1]\n"}
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes(harmed[how])
    return harmed.get(how)


def judge_damaged(folder: Path, whole: Path, name: str, code: int, said: str) -> Verdict:
    """Count damage that is not told, and other numbers in what the run has measured."""
    (right,) = (file.parent for file in (whole / "outputs/s").glob("*/summary.json"))
    run = folder / right.relative_to(whole)
    # of use only to who wants to train the run on, or made again
    told = Path(name).name in said or (code == 0 and name.startswith("checkpoints"))
    lost = int(not told or code not in (0, 2) or "Traceback" in said)
    texts = [f / "summary.json" for f in (run, right)]
    if not texts[0].is_file():
        return Verdict(lost=1)
    found, wanted = (json.loads(text.read_text()) for text in texts)
    return Verdict(lost=lost, changed=int(found != wanted))


def damage_files(place: Path, most: int) -> Tally:
    """Damage every file of a finished run in every way, and give the command again."""
    work, whole = train_with(), place / "whole"
    if run_forked(work, whole).code:
        raise RuntimeError((place / "whole.said").read_text())
    verdicts, places = [], []
    for name, how in spread([(name, how) for name in FILES for how in HARMS], most):
        folder = place / f"{Path(name).name}-{how}"
        shutil.copytree(whole, folder)
        (run,) = (file.parent for file in (folder / "outputs/s").glob("*/summary.json"))
        harm_file(run / name, how)
        code = run_forked(work, folder).code
        said = folder.with_name(f"{folder.name}.said").read_text()
        verdicts.append(judge_damaged(folder, whole, name, code, said))
        if any(verdicts[-1]):
            places.append(f"{name}, {how}: exit code {code}")
    sums = [sum(column) for column in zip(*verdicts, strict=True)]
    return Tally("damaged files of a run", len(verdicts), *sums, places=tuple(places))


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Kill eight recipes at each operation, then tear writes, fill the disk, damage files."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    most = 4 if quick else 10**6
    for i, (name, overrides) in enumerate(RECIPES.items()):
        where = place / str(i)
        yield kill_everywhere(
            f"one run, {name}", train_with(*overrides), judge_stack, where, most=most
        )
    yield break_writes("torn writes", tear, place / "torn", most)
    yield break_writes("disk full from a write on", fill_disk, place / "full", most)
    yield damage_files(place / "damaged", 10 if quick else 10**6)
