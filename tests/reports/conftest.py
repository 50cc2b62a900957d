from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import CollectedRuns, MetricCurve, RunRecord
from truerisk.risk.measured import Measured

METRICS = ("risk/train", "risk/val", "risk/test")


def config_of(optimizer="sgd", lr=0.1, data="iris", seed=0, **more):
    flat = {
        "choices": {"optimizer": optimizer, "data": data},
        "optimizer": {"_target_": f"torch.optim.{optimizer.upper()}", "lr": lr},
        "data": {"_target_": "truerisk.data.DataModule", "batch_size": 100},
        "regularizer": {"early_stopping": {"patience": 20}},
        "seed": {"base": seed, "init": None, "data": None, "order": None, "noise": None},
    }
    return {**flat, **more}


def run_of(seed=0, summary=None, status="finished", val=None, config=None, **recipe):
    """A run as `collect_runs` reads it, with a curve of validation risk, one step an epoch."""
    curve = {}
    if val is not None:
        epochs = np.arange(len(val))
        curve = {"risk/val": MetricCurve(epochs, 10 * epochs, np.array(val, dtype=float))}
    made = config or config_of(seed=seed, **recipe)
    measured = {name: Measured(value, 0.01, 3) for name, value in (summary or {}).items()}
    return RunRecord(
        Path("run"), made, status, "", (seed,) * 4, "", "truerisk train", measured, curve
    )


def study_of(tables, **more):
    """A study from {recipe: [seeds, (train, val, test)]} or {recipe: [seeds]}, every risk alike."""
    runs = []
    for lr, table in tables.items():
        for seed, row in enumerate(np.asarray(table, dtype=float)):
            values = np.broadcast_to(row, 3)
            runs.append(run_of(seed, dict(zip(METRICS, values, strict=True)), lr=lr, **more))
    return build_study(CollectedRuns(runs, []))


def write_run(folder, config, summary, epochs=3, status="finished", reason="", started="2026"):
    """The files of a run, with risks that fall from epoch to epoch."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    facts = {"started": started, "command": ["truerisk", "train", "-m", "optimizer.lr=0.1,0.2"]}
    (folder / "metadata.json").write_text(json.dumps(facts))
    (folder / "status.json").write_text(json.dumps({"status": status, "reason": reason}))
    named = {n: {"value": v, "stderr": 0.01, "epoch": epochs} for n, v in summary.items()}
    (folder / "summary.json").write_text(json.dumps(named))
    rows = [
        f"{10 * e},{e},{name},{value * (1 + 1 / (1 + e))!r}\n"
        for e in range(epochs + 1)
        for name, value in summary.items()
        if not name.endswith("test")
    ]
    (folder / "metrics.csv").write_text("step,epoch,name,value\n" + "".join(rows))
    return folder


@pytest.fixture(scope="session")
def synthetic():
    """Makers of runs and studies that never ran."""

    class Makers:
        config, run, study, write = map(staticmethod, (config_of, run_of, study_of, write_run))

    return Makers
