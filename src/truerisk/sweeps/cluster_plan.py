"""How long the rest of a sweep takes on the nodes of a cluster, from the blocks that are timed."""

from __future__ import annotations

import heapq
import json
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

from truerisk.core.errors import ConfigError, format_count
from truerisk.sweeps.launcher.launcher import Launcher
from truerisk.sweeps.launcher.vectorized import Vectorized
from truerisk.sweeps.sweep_cell import DONE, SweepCell


class BlockTime(NamedTuple):
    """Seconds T(K) = a + b·K of a block of K cells, or those of the only size that is timed.

    Attributes:
        fixed: a, what is shared; of a single size all of its time.
        share: b, of a cell.
        sizes: those that are timed.
    """

    fixed: float
    share: float
    sizes: tuple[int, ...]

    def predict(self, cells: int) -> float:
        """Return the seconds of a block; where one size is timed, the most that a smaller takes."""
        return self.fixed + self.share * cells

    def covers(self, cells: int) -> bool:
        """Tell whether a block is no larger than those that are timed."""
        return cells <= self.sizes[-1]


def fit_block_time(blocks: Sequence[tuple[int, float]]) -> BlockTime:
    """Fit a, b ≥ 0 to timed blocks, with the least squares of relative errors.

    Args:
        blocks: cells and seconds of each.

    >>> fit_block_time([(1, 3.0), (5, 7.0)]).predict(3)
    5.0
    """
    import numpy as np
    from scipy.optimize import nnls

    sizes = tuple(sorted({cells for cells, _ in blocks}))
    seconds = np.array([seconds for _, seconds in blocks])
    if len(sizes) == 1:
        return BlockTime(float(median(seconds)), 0.0, sizes)
    columns = np.array([(1.0, cells) for cells, _ in blocks])
    (fixed, share), _ = nnls(columns / seconds[:, None], np.ones(len(blocks)))
    return BlockTime(round(float(fixed), 9), round(float(share), 9), sizes)


def end_of_jobs(seconds: Sequence[float], nodes: int) -> float:
    """Return when the last job ends, each on the first node that is free, in their order.

    Args:
        seconds: of each job.
        nodes: how many there are, a job on each.

    >>> end_of_jobs([3.0, 1.0, 1.0, 2.0], 2)
    4.0
    """
    free = [0.0] * nodes
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def describe_structure(config: Mapping[str, Any]) -> str:
    """Return what is the same for cells that take about the same time: all but numbers."""
    from truerisk.engine.stacked.grouping import FREE, common_structure, find_obstacle

    if not find_obstacle(config):
        return common_structure(config)
    common: dict[str, Any] = {key: node for key, node in config.items() if key not in FREE}
    for part in ("optimizer", "loss"):
        common[part] = {k: v for k, v in common[part].items() if not isinstance(v, int | float)}
    return json.dumps(common, sort_keys=True, default=str)


def find_blocks(cells: Sequence[SweepCell]) -> dict[str, list[tuple[int, float]]]:
    """Find the timed blocks of finished cells: their size and their seconds, by structure."""
    members: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for cell in cells:
        record = cell.run.status()
        together, seconds = record.get("together", 1), record.get("seconds", 0.0)
        # one that diverged by itself says nothing of those that will not
        if not seconds or (together == 1 and record["status"] != "finished"):
            continue
        process = record.get("host"), record.get("pid"), record.get("began")
        began = datetime.fromisoformat(record["time"]).timestamp() - seconds
        key = describe_structure(cell.config), together, process
        members.setdefault(key, []).append((began, seconds))
    blocks: dict[str, list[tuple[int, float]]] = {}
    for (structure, size, _), times in members.items():
        times.sort()  # a process trains its blocks one after another
        for start in range(0, len(times), size):
            # one that stops early leaves the block, which goes on
            longest = max(seconds for _, seconds in times[start : start + size])
            blocks.setdefault(structure, []).append((size, longest))
    return blocks


def time_start_up() -> float:
    """Time what a job does before its first cell: a fresh Python that imports what trains."""
    began = time.perf_counter()
    modules = "truerisk.sweeps.launcher.stacked_group, truerisk.engine.lightning, submitit"
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - began


class ClusterPlan:
    """What is left of a sweep, as jobs on the nodes of a cluster.

    Args:
        cells: of the sweep; those that are done are what the times are taken from.
        waiting: those of them that are left to run.
        launcher: sends the jobs.
        nodes: how many there are.
        study: its name.
        start_up: times what a job does before its first cell, in seconds.

    Raises:
        ConfigError: the launcher sends no jobs, or cells are left of which none like them is timed.
    """

    def __init__(
        self,
        cells: Sequence[SweepCell],
        waiting: Sequence[SweepCell],
        launcher: Launcher,
        nodes: int,
        study: str,
        start_up: Callable[[], float] = time_start_up,
    ) -> None:
        if getattr(launcher, "cluster", None) != "slurm":
            raise ConfigError(
                "--nodes: this launcher sends no jobs to a cluster; "
                "give hydra/launcher=vectorized_slurm or submitit_slurm"
            )
        most = getattr(launcher, "job", {}).get("array_parallelism", nodes)
        if nodes > most:
            raise ConfigError(
                f"--nodes {nodes}: array_parallelism lets {format_count(most, 'job')} run at once"
            )
        self.launcher, self.nodes = launcher, nodes
        self.size = getattr(launcher, "size", 1)
        self.processes = getattr(launcher, "processes", 1)
        self.groups = launcher.group_cells(waiting)
        if isinstance(launcher, Vectorized):
            self.groups = Vectorized.group_cells(launcher, waiting)
        blocks = find_blocks([cell for cell in cells if cell.read_outcome().status in DONE])
        structures = [describe_structure(group[0].config) for group in self.groups]
        for group, structure in zip(self.groups, structures, strict=True):
            if structure not in blocks:
                command = shlex.join([*group[0].overrides, f"study={study}"])
                raise ConfigError(
                    f"--nodes: no cell like {group[0].label} is timed: run it first, by "
                    f"truerisk train {command}"
                )
        self.times = [fit_block_time(blocks[structure]) for structure in structures]
        self.blocks = {structure: blocks[structure] for structure in structures}
        self.start_up = start_up() if self.groups else 0.0

    def list_jobs(self, size: int | None) -> list[tuple[int, float, bool]]:
        """List the jobs in the order in which they are sent.

        Args:
            size: cells of a job, for each of its processes; None leaves groups whole.

        Returns:
            The cells of each, its seconds, and whether blocks as large are timed.
        """
        from truerisk.engine.stacked.block_size import even_block_size
        from truerisk.sweeps.launcher.submitit_launcher import split_groups

        jobs = []
        for group, model in zip(self.groups, self.times, strict=True):
            for job in split_groups([group], size, self.processes):
                cells = -(-len(job) // self.processes)
                block = even_block_size(cells, size or self._choose_block(group))
                full, rest = divmod(cells, block)
                seconds = self.start_up + full * model.predict(block)
                if rest:
                    seconds += model.predict(rest)
                jobs.append((len(job), seconds, model.covers(block)))
        return jobs

    def _choose_block(self, group: Sequence[SweepCell]) -> int:
        """Choose the block of a group as a job with ``size=auto`` would on this machine."""
        if len(group) == 1:
            return 1
        from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup

        jobs = [GroupJob(group[0].make_cfg(), group[0].folder, {})]
        return StackedGroup(jobs, processes=self.processes).choose_size()

    def list_sizes(self) -> list[int]:
        """List the sizes to try: timed ones, doublings between, and equal shares of the nodes."""
        stacked = [
            (len(group), model)
            for group, model in zip(self.groups, self.times, strict=True)
            if len(group) > 1
        ]
        sizes = {size for _, model in stacked for size in model.sizes}
        if any(len(model.sizes) > 1 for _, model in stacked):
            sizes |= {2**i for i in range(8)}
            cells = sum(count for count, _ in stacked)
            sizes |= {-(-cells // (self.nodes * self.processes * i)) for i in (1, 2, 3, 4)}
        largest = min((model.sizes[-1] for _, model in stacked), default=0)
        smallest = max((model.sizes[0] for _, model in stacked), default=0)
        return sorted(size for size in sizes if smallest <= size <= largest)

    def format_lines(self) -> Iterator[str]:
        """Write what is timed, how long the jobs take as asked and in other sizes, and the best."""
        from truerisk.sweeps.sweep_plan import format_duration

        if not self.groups:
            yield "nothing is left to run"
            return
        start = format_duration(self.start_up)
        nodes = format_count(self.nodes, "node")
        yield f"{nodes}, one job on each; a job starts up in {start}, timed just now"
        models = dict(zip(self.blocks, map(fit_block_time, self.blocks.values()), strict=True))
        for structure, model in models.items():
            counts = Counter(size for size, _ in self.blocks[structure])
            told = ", ".join(f"{count} of {_count(size, 'cell')}" for size, count in counts.items())
            if len(model.sizes) > 1:
                fixed, share = format_duration(model.fixed), format_duration(model.share)
                yield f"timed blocks: {told}: K cells take {fixed} + {share} · K"
            else:
                yield (
                    f"timed blocks: {told}, {format_duration(model.fixed)}; what a cell adds "
                    "cannot be told until a block of another size is timed"
                )
        tried = {size: self.list_jobs(size) for size in self.list_sizes()}
        ends = {size: self._end(jobs) for size, jobs in tried.items()}
        asked = self.list_jobs(self.size)
        yield "as asked: " + self._describe(asked)
        for size, jobs in tried.items():
            yield f"hydra.launcher.size={size}: " + self._describe(jobs)
        if len(ends) > 1:
            best = min(ends, key=lambda size: ends[size])
            yield f"best of these on {format_count(self.nodes, 'node')}: hydra.launcher.size={best}"

    def _end(self, jobs: Sequence[tuple[int, float, bool]]) -> float:
        return end_of_jobs([seconds for _, seconds, _ in jobs], self.nodes)

    def _describe(self, jobs: Sequence[tuple[int, float, bool]]) -> str:
        from truerisk.sweeps.sweep_plan import format_duration

        single = any(len(model.sizes) == 1 for model in self.times)
        number = _count(len(jobs), "job")
        if single and not all(timed for _, _, timed in jobs):
            return f"{number}, of blocks larger than the size that is timed: no time known"
        most = max(count for count, _, _ in jobs)
        longest = format_duration(max(seconds for _, seconds, _ in jobs))
        line = f"{number} of up to {_count(most, 'cell')}, the slowest {longest}"
        line += f", the last ends after {format_duration(self._end(jobs))}"
        return line if all(timed for _, _, timed in jobs) else f"{line} (beyond the sizes timed)"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
