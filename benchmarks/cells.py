"""``python -m benchmarks.cells basic|pool|skip COUNT`` prints seconds.

Of computing, a cell, for launchers; of waiting for a command that finds all done, for ``skip``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter

from hydra.types import HydraContext, RunMode

from truerisk.config.compose import Callbacks, ConfigLoader, expand_short_forms, hydra_session
from truerisk.launch import train_job
from truerisk.sweeps.launcher import HydraJobs
from truerisk.sweeps.launcher.launcher import HydraPlugin
from truerisk.sweeps.launcher.pool import Pool, warm_up
from truerisk.sweeps.sweep import Sweep
from truerisk.sweeps.sweep_cell import SweepCell

TINY = ["data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=3"]


def sweep(loader: ConfigLoader, count: int) -> Sweep:
    """A sweep over seeds."""
    overrides = expand_short_forms([*TINY, "study=s", f"seed=range({count})"])
    shared = loader.load_configuration("train", overrides, RunMode.MULTIRUN)
    return Sweep(loader, "train", overrides, shared)


def launch(name: str, asked: Sweep, cells: Sequence[SweepCell]) -> float:
    """Seconds of computing a cell, here and in workers, once everything is imported and has run."""
    jobs = HydraJobs(HydraContext(asked.loader, Callbacks(asked.shared)), train_job, asked.shared)
    launcher = Pool(slots=1) if name == "pool" else HydraPlugin()
    before = sum(os.times()[:4])
    launcher.launch(cells, jobs)
    return (sum(os.times()[:4]) - before) / len(cells)


def finish(cells: Sequence[SweepCell]) -> None:
    """Folders as finished runs leave them, as far as skipping looks at them."""
    for cell in cells:
        cell.folder.mkdir(parents=True)
        (cell.folder / "config.yaml").write_text("data:\n  name: iris\ntrainer: {}\n")
        (cell.folder / "metadata.json").write_text("{}\n")
        (cell.folder / "metrics.csv").write_text("step,epoch,name,value\n")
        (cell.folder / "status.json").write_text(json.dumps({"status": "finished"}))
        (cell.folder / "summary.json").write_text(json.dumps({"risk/val": {"value": 0.5}}))


def skip(cells: Sequence[SweepCell], count: int) -> float:
    """Seconds for the command that finds all of them finished."""
    finish(cells)
    command = [sys.executable, "-m", "truerisk", "train", "-m", *TINY, "study=s"]
    began = perf_counter()
    done = subprocess.run([*command, f"seed=range({count})"], capture_output=True, text=True)
    assert f"{count} finished ({count} of them before)" in done.stdout, done.stderr
    return perf_counter() - began


def main(name: str, count: int) -> float:
    """What is asked for, measured in an empty folder."""
    with hydra_session():
        asked = sweep(ConfigLoader(), count)
        cells = asked.study.compose_cells(next(asked.propose_batches()))
        if name == "skip":
            return skip(cells, count)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with contextlib.redirect_stdout(io.StringIO()):
            warm_up()
            return launch(name, asked, cells)


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
