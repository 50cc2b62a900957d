"""``python -m benchmarks.cells basic|pool|skip|again|cold|plan|report COUNT`` prints seconds.

Of computing, a cell, for launchers; otherwise of waiting for the command, which finds all done, and
of computing in it, and the MiB it took at most. ``skip`` reads the cells' folders, ``again`` has
their index, and so has ``cold``, for which root empties the system's memory of files (Linux).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import yaml
from hydra.types import HydraContext, RunMode

from benchmarks.process import make_environment
from truerisk.config.compose import Callbacks, ConfigLoader, expand_short_forms, hydra_session
from truerisk.launch import train_job
from truerisk.sweeps.launcher import HydraJobs
from truerisk.sweeps.launcher.launcher import HydraPlugin
from truerisk.sweeps.launcher.pool import Pool, warm_up
from truerisk.sweeps.outcome_index import GRAIN
from truerisk.sweeps.sweep import Sweep
from truerisk.sweeps.sweep_cell import SweepCell

SEEDS = 100
TINY = ["data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=3"]


MEASURED = """
import sys
from benchmarks.peak import mebibytes
from truerisk.cli import main
code = main(sys.argv[1:])
print(round(mebibytes()), end="")
raise SystemExit(code)
"""
"""Runs a command, then prints its peak memory."""


def axes(count: int) -> list[str]:
    """So many cells: a hundred seeds, or fewer, of each of so many learning rates."""
    rates = [f"{0.1 * (i + 1) / max(1, count // SEEDS):.6g}" for i in range(max(1, count // SEEDS))]
    return [f"optimizer.lr={','.join(rates)}", f"seed=range({min(count, SEEDS)})"]


def sweep(loader: ConfigLoader, count: int) -> Sweep:
    """A sweep over learning rates and seeds."""
    overrides = expand_short_forms([*TINY, "study=s", *axes(count)])
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
    """Make folders as finished runs leave them: those of one real run, with other numbers."""
    import truerisk

    first, *others = cells
    assert truerisk.train(list(first.overrides), folder=first.folder).status == "finished"
    files = ("config.yaml", "metadata.json", "metrics.csv", "status.json", "summary.json")
    texts = {name: (first.folder / name).read_text() for name in files}
    config = yaml.safe_load(texts["config.yaml"])
    facts, summary = (json.loads(texts[name]) for name in ("metadata.json", "summary.json"))
    draw = random.Random(0)
    for number, cell in enumerate(others):
        scale = math.exp(draw.gauss(0, 0.1))
        given = {key: cell.config[key] for key in ("seed", "optimizer")}
        measured = {name: {**m, "value": m["value"] * scale} for name, m in summary.items()}
        texts["config.yaml"] = yaml.dump({**config, **given}, Dumper=yaml.CSafeDumper)
        texts["metadata.json"] = json.dumps({**facts, "id": f"{number:012x}"})
        texts["summary.json"] = json.dumps(measured)
        cell.folder.mkdir(parents=True)
        for name, text in texts.items():
            (cell.folder / name).write_text(text)


def wait(command: str, cells: Sequence[SweepCell]) -> tuple[float, float, int]:
    """Seconds, of waiting and of computing, and MiB of a command that finds all cells finished."""
    finish(cells)
    if command in ("again", "cold"):
        sleep(GRAIN)  # younger files are not recorded
        spend("skip", len(cells))
    if command == "cold":
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    return spend(command, len(cells))


def spend(command: str, count: int) -> tuple[float, float, int]:
    """What `wait` returns, of a study that is there."""
    asked = [*TINY, "study=s", *axes(count)]
    skipping = ["train", "-m", *asked, "report=false"], f"({count} of them before)"
    arguments, said = {
        "plan": (["plan", *asked], f": {count} finished"),
        "report": (["report", "outputs/s"], f"{count} runs of "),
    }.get(command, skipping)
    began, before = perf_counter(), sum(os.times()[2:4])
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        env=make_environment(),
        check=False,
    )
    took, computed = perf_counter() - began, sum(os.times()[2:4]) - before
    assert not done.returncode and said in done.stdout, done.stdout + done.stderr
    return took, computed, int(done.stdout.rpartition("\n")[2])


def main(name: str, count: int) -> tuple[float, ...]:
    """What is asked for, measured in the working folder, which is empty."""
    with hydra_session():
        asked = sweep(ConfigLoader(), count)
        cells = asked.study.compose_cells(next(asked.propose_batches()))
        if name not in ("basic", "pool"):
            return wait(name, cells)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with contextlib.redirect_stdout(io.StringIO()):
            warm_up()
            return (launch(name, asked, cells),)


if __name__ == "__main__":
    with TemporaryDirectory(prefix="cells-") as folder, contextlib.chdir(folder):
        print(*main(sys.argv[1], int(sys.argv[2])))
