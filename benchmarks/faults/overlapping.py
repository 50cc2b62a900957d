"""Commands at once that name the same cells differently."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.kills import Tally, Verdict, Work, fork_work, run_forked
from benchmarks.faults.tuning import SMALL, count_doubled

COMMANDS = (
    ["seed=range(8)", "optimizer.lr=0.001"],
    ["seed=7,6,5,4,3,2,1,0,2", "optimizer.lr=1e-3"],
)


def sweep_over(overrides: list[str]) -> Work:
    """Return the work of one command."""
    from truerisk.cli import main

    return lambda folder: main(["train", "-m", *SMALL, *overrides])


def judge_cells(folder: Path, whole: Path) -> Verdict:
    """Count cells that are not finished, folders of one hash, and other numbers."""
    study, right = folder / "outputs/s", {}
    for file in (whole / "outputs/s").glob("*/summary.json"):
        right[file.parent.name[-10:]] = file.read_text()
    found = {file.parent.name[-10:]: file.read_text() for file in study.glob("*/summary.json")}
    changed = sum(found[name] != text for name, text in right.items() if name in found)
    return Verdict(len(set(right) - set(found)), count_doubled(study), changed)


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Start both commands at once, kill the first at some operation, and give it again."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    first, second = map(sweep_over, COMMANDS)
    operations = len(run_forked(first, place / "whole").operations)
    kills, wrong, places = 0, Verdict(), []
    for at in range(1, operations, max(1, operations // (4 if quick else 40))):
        folder = place / str(at)
        child, _ = fork_work(second, folder, "second")
        kills += run_forked(first, folder, at).killed
        os.waitpid(child, 0)
        run_forked(first, folder)
        verdict = judge_cells(folder, place / "whole")
        wrong = Verdict(*(a + b for a, b in zip(wrong, verdict, strict=True)))
        if any(verdict):
            places.append(f"{at}: {verdict}")
    yield Tally("cells with two names, one of two commands", kills, *wrong, tuple(places))
