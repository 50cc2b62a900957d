"""Training a group of cells together, a block of them at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from truerisk.core import threads
from truerisk.core.errors import Interrupted, UserError
from truerisk.core.files import write_atomic
from truerisk.engine.signals import on_stop
from truerisk.engine.stacked.block import Block
from truerisk.engine.stacked.block_size import choose_block_size, even_block_size
from truerisk.engine.stacked.files import begun
from truerisk.engine.stacked.member import Member
from truerisk.engine.stacked.memory import is_out_of_memory, keep_freed_memory
from truerisk.engine.stacked.place import place_of
from truerisk.fit import quiet
from truerisk.run import RunFolder

SHARE = 20
"""Checkpoints of a block may take one part in so many of its time."""


class GroupJob(NamedTuple):
    """A cell to train: its configuration, its folder, and what joins its metadata."""

    cfg: DictConfig
    folder: Path
    facts: Mapping[str, Any]


class StackedGroup:
    """Cells that stack, trained block by block.

    Each leaves the files of an ordinary run in its folder, checkpoints among them, from which this
    or ``truerisk train resume=`` goes on with it.

    Args:
        jobs: the cells.
        size: members in a block at most; None for what suits the model.
        tell: called with the number of steps that were taken, and by how many whole runs that,
            and what need not be run, brings the cells on.
        processes: how many share the machine's memory.
    """

    def __init__(
        self,
        jobs: Sequence[GroupJob],
        size: int | None = None,
        tell: Callable[[int, float], None] = lambda taken, done: None,
        processes: int = 1,
    ) -> None:
        self.jobs, self.size, self.tell, self.processes = list(jobs), size, tell, processes
        self.refused: dict[Path, str] = {}
        self.stop = ""

    def train(self) -> None:
        """Train what has not ended yet; cells that cannot begin are left in ``refused``.

        Raises:
            Interrupted: the process was asked to stop; every cell in progress has been saved.
        """
        keep_freed_memory()
        with quiet(), threads.limit_threads(_threads(self.jobs[0].cfg)), on_stop(self.request_stop):
            waiting = self.jobs
            most = self.size or choose_block_size(self.jobs[0].cfg, self.processes)
            self.size = even_block_size(len(self.jobs), most)
            while waiting:
                now, waiting = waiting[: self.size], waiting[self.size :]
                try:
                    self._together(now)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if len(now) == 1 or not is_out_of_memory(error):
                        raise
                    self.size = -(-len(now) // 2)
                    waiting = [*now, *waiting]

    def request_stop(self, why: str) -> None:
        """Save all cells after the step at hand and end, as the signal of that name asks."""
        self.stop = why

    def _together(self, jobs: Sequence[GroupJob]) -> None:
        """Train some cells; those of another shape or at another step, one after another."""
        blocks: dict[Any, list[Member]] = {}
        for job in jobs:
            try:
                member = opened(job)
            except UserError as error:
                self.refused[job.folder] = str(error)
            else:
                self.tell(0, member.count / member.horizon)
                blocks.setdefault(member.shape, []).append(member)
        for members in blocks.values():
            for member in members:
                member.run.together = len(members)
            self._block(Block(members))

    def _block(self, block: Block) -> None:
        with block.members[0].place.computing():
            saved, took = time.monotonic(), 0.0
            seconds = block.members[0].cfg.checkpoint_seconds
            members = len(block.members)
            for _ in block.train():
                spared = (members - len(block.members)) * (block.horizon - block.count)
                self.tell(members, (members + spared) / block.horizon)
                members = len(block.members)
                if time.monotonic() - saved >= max(seconds, SHARE * took) or self.stop:
                    began = time.monotonic()
                    block.save("interrupted" if self.stop else "", self.stop)
                    saved = time.monotonic()
                    took = saved - began
                if self.stop:
                    raise Interrupted


def opened(job: GroupJob) -> Member:
    """A member at its start, or where its checkpoint left it.

    Raises:
        UserError: it cannot begin, or go on.
    """
    run = RunFolder(job.folder)
    resumed, config = run.config.exists(), OmegaConf.to_yaml(job.cfg, resolve=True)
    if resumed:
        run.reopen()
        write_atomic(run.config, config)
    member = Member(job.cfg, run, place_of(job.cfg))
    checkpoint = begun(run) if resumed else None
    if checkpoint is not None:
        member.restore(checkpoint)
    if resumed:
        run.set_status("running", "resumed")
    else:
        facts = {"threads": torch.get_num_threads(), **member.recipe.facts(), **job.facts}
        run.create(config, facts)
    return member


def _threads(cfg: DictConfig) -> int:
    return 1 if cfg.threads == "auto" else int(cfg.threads)
