"""Cells that differ only in numbers trained as one stacked model, a SLURM job each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import CellWork, lost_outcome
from truerisk.sweeps.launcher.vectorized import Vectorized
from truerisk.sweeps.sweep_cell import SweepCell


class VectorizedSlurm(Vectorized):
    """``hydra/launcher=vectorized_slurm``: groups on a cluster; the other cells a job each.

    Args:
        job: submitit's options of a job, as ``hydra/launcher=submitit_slurm`` names them.
        size: cells trained at once at most, or ``auto``.
        processes: processes that share the cells of a group.
    """

    def __init__(
        self, job: Mapping[str, Any], size: int | str = "auto", processes: int = 1
    ) -> None:
        super().__init__(size, processes)
        self.job = dict(job)

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Send a job a group, and wait for all of them."""
        executor, work_of = self._make_executor(), {work.cell.folder: work for work in works}
        groups = self.group_cells([work.cell for work in works])
        # a job groups its cells once more, which gives the same single group
        here = Vectorized(self.size or "auto", self.processes)
        with executor.batch():  # one array job, sent when the block ends
            shares = [GroupWork([work_of[cell.folder] for cell in g], here) for g in groups]
            sent = [executor.submit(share) for share in shares]
        for group, job in zip(groups, sent, strict=True):
            try:
                outcomes = job.result()
            except Exception as error:  # submitit raises what the job did, or that it was lost
                outcomes = [lost_outcome(cell, error) for cell in group]
            yield from zip(group, outcomes, strict=True)

    def _make_executor(self) -> Any:
        """Make submitit's executor, with the options by its names: Slurm's own bear a prefix."""
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        options = {k: v for k, v in self.job.items() if k not in ("_target_", "submitit_folder")}
        general = BaseQueueConf.__dataclass_fields__
        named = {k: v for k, v in options.items() if k in general}
        named |= {f"slurm_{k}": v for k, v in options.items() if k not in general}
        executor = submitit.AutoExecutor(
            self.job["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=named.pop("slurm_max_num_timeout"),
        )
        executor.update_parameters(**named)
        return executor


@dataclass(frozen=True)
class GroupWork:
    """What a job of the cluster does, once more after it has been put back in line."""

    works: Sequence[CellWork]
    launcher: Vectorized

    def __call__(self) -> list[Outcome]:
        """Train the cells, in the job's own process."""
        return self.launcher.run_works(self.works)

    def checkpoint(self) -> Any:
        """Answer submitit at a time limit: the same again, which goes on from checkpoints."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
