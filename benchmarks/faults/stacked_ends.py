"""Two cells trained as one stack, killed at every operation on a file; ones that diverge too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.kills import Tally, Verdict, kill_everywhere
from benchmarks.faults.tuning import count_doubled

CELLS = [
    *("data=iris", "model=mlp", "model.width=16", "trainer.max_epochs=3", "regularizer=[]"),
    *("threads=1", "study=s", "report=false", "figures=false", "checkpoint_seconds=0"),
    *("seed=1,2", "hydra/launcher=vectorized"),
]


DIVERGING = ("optimizer=sgd", "optimizer.lr=300", "model.activation=identity")
"""Both are no longer finite in their third epoch."""


def train_stack(folder: Path, *overrides: str) -> int:
    """Train both, or what is left of them."""
    from truerisk.cli import main

    return main(["train", "-m", *CELLS, *overrides])


def lose_stack(folder: Path) -> int:
    """Train both until they diverge; exit code 3 says that they have."""
    return train_stack(folder, *DIVERGING) ^ 3


def read_numbers(folder: Path) -> dict[str, str]:
    """Read all numbers of the runs, as texts: every digit counts."""
    names = ("*/summary.json", "*/metrics.csv")
    files = [file for name in names for file in (folder / "outputs/s").glob(name)]
    return {str(file.relative_to(folder)): file.read_text() for file in files}


def judge_stack(folder: Path, whole: Path) -> Verdict:
    """Count files that are missing, folders and rows that are there twice, and other digits."""
    found, right = read_numbers(folder), read_numbers(whole)
    changed = [name for name in right if name in found and found[name] != right[name]]
    return Verdict(len(set(right) - set(found)), count_doubled(folder / "outputs/s"), len(changed))


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Kill both stacks at each operation in turn."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    most = 16 if quick else 10**6
    yield kill_everywhere("two stacked cells", train_stack, judge_stack, place / "s", most=most)
    name = "two stacked cells that diverge"
    yield kill_everywhere(name, lose_stack, judge_stack, place / "d", most=most)
