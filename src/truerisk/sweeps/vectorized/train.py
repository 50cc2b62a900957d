"""Training a group of cells together, a block of them at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from truerisk import threads
from truerisk.errors import Interrupted
from truerisk.run import RunFolder
from truerisk.signals import on_stop
from truerisk.sweeps.vectorized.block import Block
from truerisk.sweeps.vectorized.files import begun
from truerisk.sweeps.vectorized.member import Member
from truerisk.sweeps.vectorized.place import place_of
from truerisk.training import quiet

Cells = Sequence[tuple[DictConfig, Path]]

LARGEST = 32
"""Members in a block, where memory allows; more fall out of a core's cache."""

SHARE = 20
"""Checkpoints of a block may take one part in so many of its time."""


class Group:
    """Cells that stack, trained block by block.

    Each leaves the files of an ordinary run in its folder, checkpoints included, from which this,
    or ``truerisk train resume=``, goes on with it.
    """

    def __init__(self, cells: Cells, size: int = LARGEST) -> None:
        self.cells, self.size = list(cells), size
        self.stop = ""

    def train(self) -> None:
        """Train what has not ended yet.

        Raises:
            Interrupted: the process was asked to stop; every cell in progress has been saved.
        """
        with quiet(), threads.limited(1), on_stop(self._request_stop):
            waiting = self.cells
            while waiting:
                now, waiting = waiting[: self.size], waiting[self.size :]
                try:
                    self._together(now)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if len(now) == 1 or not out_of_memory(error):
                        raise
                    self.size = -(-len(now) // 2)
                    waiting = [*now, *waiting]

    def _request_stop(self, why: str) -> None:
        self.stop = why

    def _together(self, cells: Cells) -> None:
        """Train some cells; those that stand at different steps, one after another."""
        members = [opened(cfg, RunFolder(folder)) for cfg, folder in cells]
        places = {(m.epoch, m.step_in_epoch): [] for m in members}
        for member in members:
            places[member.epoch, member.step_in_epoch].append(member)
        for together in places.values():
            self._block(Block(together))

    def _block(self, block: Block) -> None:
        with block.members[0].place.computing():
            saved, took = time.monotonic(), 0.0
            seconds = block.members[0].cfg.checkpoint_seconds
            for _ in block.train():
                if time.monotonic() - saved >= max(seconds, SHARE * took) or self.stop:
                    began = time.monotonic()
                    block.save("interrupted" if self.stop else "", self.stop)
                    saved = time.monotonic()
                    took = saved - began
                if self.stop:
                    raise Interrupted


def opened(cfg: DictConfig, run: RunFolder) -> Member:
    """A member at its start, or where its checkpoint left it."""
    resumed = run.config.exists()
    if resumed:
        run.reopen()
    member = Member(cfg, run, place_of(cfg))
    checkpoint = begun(run) if resumed else None
    if checkpoint is not None:
        member.restore(checkpoint)
    if resumed:
        run.set_status("running", "resumed")
    else:
        facts = {"threads": torch.get_num_threads(), **member.recipe.facts()}
        run.create(OmegaConf.to_yaml(cfg, resolve=True), facts)
    return member


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        word in str(error) for word in words
    )
