"""Cells, or stacked groups of them, as jobs of submitit's: on SLURM, or as processes here."""

from __future__ import annotations

import contextlib
import io
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, ProcessLost, first_line, read_message
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import (
    CellWork,
    Launcher,
    SerialLauncher,
    WorkShare,
    lost_outcome,
    tell_far,
)
from truerisk.sweeps.launcher.vectorized import Vectorized
from truerisk.sweeps.run_cell import REFUSALS
from truerisk.sweeps.sweep_cell import SweepCell

GENERAL = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node"),
    *("tasks_per_node", "stderr_to_stdout"),
)
"""Options that submitit has for every cluster; those of one bear its name before theirs."""
COUNTS = {"timeout_min": 1, "cpus_per_task": 1, "tasks_per_node": 1, "nodes": 1, "gpus_per_node": 0}
COUNTS |= {"cpus_per_gpu": 1, "gpus_per_task": 0, "array_parallelism": 1}
COUNTS |= {"signal_delay_s": 0, "max_num_timeout": 0}
"""Options that are whole numbers, each with the least that it may be."""
TASKS = 1000
"""Tasks in one array of jobs: SLURM's own limit, where ``MaxArraySize`` is as it comes."""
LATE = 15
"""Seconds after which a file that was written on another machine is seen here."""


class SlurmLauncher(Launcher):
    """``hydra/launcher=submitit_slurm``: every cell a task of an array of SLURM's.

    Args:
        job: options of a task, as ``conf/hydra/launcher/submitit_slurm.yaml`` has them.

    Raises:
        ConfigError: one of them takes no such value.
    """

    cluster = "slurm"

    def __init__(self, **job: Any) -> None:
        check_options("hydra.launcher", job)
        self.job = job

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Send a task for each cell, and wait for all of them."""
        shares = self.share_works(works)
        yield from tell_far(send_shares(shares, SerialLauncher(), self.cluster, self.job))


class LocalLauncher(SlurmLauncher):
    """``hydra/launcher=submitit_local``: every cell a process of this machine, all at once."""

    cluster = "local"


class VectorizedSlurm(Vectorized):
    """``hydra/launcher=vectorized_slurm``: groups on a cluster; the other cells a job each.

    Args:
        job: submitit's options of a job, as ``hydra/launcher=submitit_slurm`` names them.
        size: cells of a job, trained at once, for each of its processes; ``auto`` sends every
            group as one job, which trains as many of them at once as memory allows.
        processes: processes that share the cells of a job.

    Raises:
        ConfigError: one of them, or of the job's, takes no such value.
    """

    cluster = "slurm"

    def __init__(
        self, job: Mapping[str, Any], size: int | str = "auto", processes: int = 1
    ) -> None:
        super().__init__(size, processes)
        check_options("hydra.launcher.job", job)
        self.job = dict(job)

    def group_cells(self, cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
        """Say which cells are a job: a group, or one block of it where ``size`` is a number."""
        return split_groups(super().group_cells(cells), self.size, self.processes)

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Send a task a job, and wait for all of them."""
        # a task groups its cells once more, which gives the same single group
        here = Vectorized(self.size or "auto", self.processes)
        shares = self.share_works(works)
        yield from tell_far(send_shares(shares, here, self.cluster, self.job))


def split_groups(
    groups: Sequence[list[SweepCell]], size: int | None, processes: int = 1
) -> list[list[SweepCell]]:
    """Split groups into jobs, all of one group much of a size.

    The blocks are those that one process would train in turn, and so end in the same numbers.

    Args:
        groups: of cells.
        size: cells of a job for each of its processes; None leaves a group whole.
        processes: that share a job.
    """
    from truerisk.engine.stacked.block_size import even_block_size

    if size is None:
        return list(groups)
    jobs = []
    for group in groups:
        cells = even_block_size(len(group), size * processes)
        jobs += [group[i : i + cells] for i in range(0, len(group), cells)]
    return jobs


class ClusterTask(WorkShare):
    """A share that is put back in line at a time limit, and prints into files of its own."""

    def __call__(self) -> list[Outcome]:
        """Train the cells, and tell there, too, which were refused."""
        try:
            return super().__call__()
        finally:
            REFUSALS.tell()

    def checkpoint(self) -> Any:
        """Answer submitit at a time limit: the same again, which goes on from checkpoints."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def send_shares(
    shares: Sequence[Sequence[CellWork]], launcher: Launcher, cluster: str, job: Mapping[str, Any]
) -> Iterator[tuple[SweepCell, Outcome]]:
    """Send a task for each share of the cells, and wait for all of them.

    Args:
        shares: works that one task does.
        launcher: runs a share, inside its task.
        cluster: ``slurm`` or ``local``.
        job: submitit's options of a task.

    Yields:
        Cells and how they ended, in their order.

    Raises:
        ConfigError: submitit has no such option, or it takes no such value.
    """
    executor, sent, problem = make_executor(cluster, job), [], ""
    for start in range(0, len(shares), TASKS):
        tasks = [ClusterTask(share, launcher) for share in shares[start : start + TASKS]]
        try:
            sent += send_array(executor, tasks)
        except ConfigError as error:
            choices = shares[0][0].jobs.shared.hydra.runtime.choices
            problem = f"hydra/launcher={choices['hydra/launcher']}: {error}"
            break
    if problem and not sent:
        raise ConfigError(problem)
    for share, task in zip(shares, sent, strict=False):
        cells = [work.cell for work in share]
        try:
            if cluster == "slurm":
                wait_for_slurm(task, cells)
            outcomes = task.results()[0]  # the first process of several speaks for all
        except Exception as error:  # submitit raises what the task did, or that it was lost
            outcomes = [lost_outcome(cell, error) for cell in cells]
        yield from zip(cells, outcomes, strict=True)
    for share in shares[len(sent) :]:  # a cluster may take so many jobs of a user at once
        yield from ((work.cell, lost_outcome(work.cell, problem)) for work in share)


def send_array(executor: Any, tasks: Sequence[ClusterTask]) -> list[Any]:
    """Send tasks as one array.

    Args:
        executor: submitit's.
        tasks: no more than an array may have.

    Returns:
        Submitit's job of each.

    Raises:
        ConfigError: ``sbatch`` does not take them, or is not there.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # submitit prints what sbatch said, too
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            return [executor.submit(task) for task in tasks]  # sent when the block ends
    except (FailedJobError, FailedSubmissionError) as error:
        said = str(error) or read_message(error.__cause__ or error)
        lines = [line.removeprefix("sbatch: ").strip() for line in said.splitlines()]
        lines = [line.removeprefix("error: ").removeprefix("fatal: ") for line in lines if line]
        raise ConfigError(f"sbatch says: {'; '.join(lines)}") from error
    except OSError as error:
        if error.filename != "sbatch":
            raise
        raise ConfigError(f"sbatch cannot be run: {error.strerror}") from error


def wait_for_slurm(task: Any, cells: Sequence[SweepCell]) -> None:
    """Wait for a task that may be killed on a cluster that keeps no accounts.

    Submitit knows a task without a result to have ended from ``sacct`` alone.

    Args:
        task: submitit's job.
        cells: that it trains.

    Raises:
        ProcessLost: it is in the queue no more, and has left no result.
    """
    began = asked = time.monotonic()
    while not task.done():
        time.sleep(1)
        now = time.monotonic()
        if now - asked < min(60, max(2, (now - began) / 10)):
            continue
        asked = now
        if not is_queued(task.job_id):
            # a shared folder may show the result late, unless it shows how the cells ended
            limit = now + LATE
            while not task.done() and any(map(_is_open, cells)) and time.monotonic() < limit:
                time.sleep(1)
            if not task.done():
                raise ProcessLost(f"job {task.job_id} ended without a result: {task.paths.stderr}")


def is_queued(job: str) -> bool:
    """Ask SLURM whether a job still waits, runs or ends; True where it does not answer."""
    try:
        asked = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True)
    except OSError:  # it was not even there, which says nothing of the job
        return True
    if asked.returncode:
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())


def _is_open(cell: SweepCell) -> bool:
    return cell.read_outcome().status in ("missing", "running")


def check_options(key: str, job: Mapping[str, Any]) -> None:
    """Refuse values that submitit or ``sbatch`` would fail at in words of their own.

    Args:
        key: below which the options stand.
        job: submitit's options of a task.

    Raises:
        ConfigError: one of them takes no such value.
    """
    given = {name: value for name, value in job.items() if value is not None}
    for name in given.keys() & COUNTS.keys():
        check_int(f"{key}.{name}", given[name], COUNTS[name])
    if "mem_gb" in given:
        check_float(f"{key}.mem_gb", given["mem_gb"], above=True)
    kinds = {"setup": (list, "a list of commands"), "stderr_to_stdout": (bool, "true or false")}
    kinds["additional_parameters"] = (dict, "a mapping such as {mail-user: me@here}")
    for name in given.keys() & kinds.keys():
        kind, words = kinds[name]
        if not isinstance(given[name], kind):
            raise ConfigError(f"{key}.{name} must be {words}, not {given[name]!r}")


def make_executor(cluster: str, job: Mapping[str, Any]) -> Any:
    """Make submitit's executor."""
    import submitit

    options = {k: v for k, v in job.items() if k not in ("_target_", "submitit_folder")}
    named = {k: v for k, v in options.items() if k in GENERAL}
    named |= {f"{cluster}_{k}": v for k, v in options.items() if k not in GENERAL}
    begin = {k: named.pop(k) for k in ("slurm_max_num_timeout",) if k in named}
    try:
        executor = submitit.AutoExecutor(job["submitit_folder"], cluster=cluster, **begin)
        executor.update_parameters(**named)
    except (AssertionError, NameError, RuntimeError) as error:
        raise ConfigError(f"hydra.launcher: submitit says: {first_line(error)}") from error
    return executor
