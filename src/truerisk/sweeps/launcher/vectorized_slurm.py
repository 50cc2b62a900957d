"""Cells that differ only in numbers trained as one stacked model, a SLURM job each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals

from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import HydraJobs
from truerisk.sweeps.launcher.plugin import lost_outcome
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

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Send a job a group, and wait for all of them; how the cells ended, in their order."""
        executor, groups = self._executor(), self.groups(cells)
        here = Vectorized(self.size or "auto", self.processes)
        with executor.batch():
            shares = [Share(group, here, jobs, Singleton.get_state()) for group in groups]
            sent = [executor.submit(share) for share in shares]
        found: dict[Any, Outcome] = {}
        for group, job in zip(groups, sent, strict=True):
            ended = zip(group, _ended(job, group), strict=True)
            found |= {cell.folder: outcome for cell, outcome in ended}
        return [found[cell.folder] for cell in cells]

    def _executor(self) -> Any:
        """Submitit's, with the options by its own names: Slurm's own bear a prefix."""
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        options = {k: v for k, v in self.job.items() if k not in ("_target_", "submitit_folder")}
        general = BaseQueueConf.__dataclass_fields__
        named = {k if k in general else f"slurm_{k}": v for k, v in options.items()}
        executor = submitit.AutoExecutor(
            self.job["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=named.pop("slurm_max_num_timeout"),
        )
        executor.update_parameters(**named)
        return executor


@dataclass(frozen=True)
class Share:
    """What a job of the cluster does, once more after it has been put back in line."""

    cells: Sequence[SweepCell]
    launcher: Vectorized
    jobs: HydraJobs
    singletons: Any

    def __call__(self) -> list[Outcome]:
        """Train the cells, in the job's own process."""
        Singleton.set_state(self.singletons)
        setup_globals()
        return self.launcher.launch(self.cells, self.jobs)

    def checkpoint(self) -> Any:
        """Submitit's hook at a time limit: the same again, which goes on from checkpoints."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _ended(job: Any, cells: Sequence[SweepCell]) -> list[Outcome]:
    """How a job's cells ended; where the job was lost, as their folders tell."""
    try:
        return job.result()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return [lost_outcome(cell, reason) for cell in cells]
