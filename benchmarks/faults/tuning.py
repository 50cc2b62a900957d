"""Optuna sweeps that are killed at every operation on a file or on their database."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.kills import Tally, Verdict, Work, kill_everywhere

TRIALS = 4
SMALL = [
    *("data=iris", "model=linear", "trainer.max_epochs=1", "regularizer=[]", "threads=1"),
    *("study=s", "report=false", "figures=false"),
]
"""A cell of some tens of milliseconds."""


def tune_with(*options: str) -> Work:
    """Return the work of one command: a search over two numbers."""
    from truerisk.cli import main

    line = ["train", "-m", *SMALL, "hydra/sweeper=optuna", f"hydra.sweeper.trials={TRIALS}"]
    line += ["optimizer.lr=tag(log,interval(1e-4,1))", "data.val=interval(0.1,0.3)", *options]
    return lambda folder: main(line)


def judge_trials(folder: Path, whole: Path) -> Verdict:
    """Count trials that are not there or not finished, those too many, and other numbers."""
    storage = f"sqlite:///{folder / 'outputs/s/optuna.db'}"
    return compare_trials(storage, folder / "outputs/s", TRIALS)


def compare_trials(storage: str, study: Path, wanted: int) -> Verdict:
    """Hold the trials in a database against what was asked, and against the runs of a study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    summary, *others = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    points = Counter(str(sorted(trial.params.items())) for trial in done)
    doubled = sum(points.values()) - len(points) + max(0, len(trials) - wanted) + len(others)
    runs = {str(path.parent): path for path in study.glob("*/summary.json")}
    changed = 0
    for trial in done:
        folder = trial.user_attrs.get("folder")
        risk = json.loads(runs[folder].read_text())["risk/val"]["value"] if folder in runs else None
        changed += risk != trial.value
    return Verdict(abs(wanted - len(done)), doubled + count_doubled(study), changed)


def count_doubled(study: Path) -> int:
    """Count cells with more than one folder, and rows of a run that were written twice."""
    folders = [path for path in study.iterdir() if path.is_dir() and path.name[0] != "."]
    digits = Counter(path.name.rpartition("-")[2] for path in folders)
    twice = sum(digits.values()) - len(digits)
    for path in study.glob("*/metrics.csv"):
        with path.open() as file:
            rows = [(row["step"], row["name"]) for row in csv.DictReader(file)]
        twice += len(rows) - len(set(rows))
    return twice


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Kill searches in turn: by random draws, by TPE, and by CMA-ES in generations."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    most = 12 if quick else 10**6
    for name, options in {
        "optuna, random": ["hydra.sweeper.sampler=random"],
        "optuna, tpe, two trials at once": ["hydra.sweeper.startup=1", "hydra.sweeper.batch=2"],
        "optuna, cmaes, generations of four": [
            "hydra.sweeper.sampler=cmaes",
            "hydra.sweeper.batch=4",
        ],
    }.items():
        where = place / name.replace(" ", "_")
        yield kill_everywhere(name, tune_with(*options), judge_trials, where, most=most)
