"""A step of one of many members trained together, with all that a run has around its steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import Pairs
from benchmarks.row import Row

if TYPE_CHECKING:
    from torch import nn

TARGETS = {
    "MLP 40-100-10": (["model=mlp", "model.depth=1"], 0.35),
    "MLP 40-100-100-10": (["model=mlp"], 0.45),
    "softmax regression": (["model=linear"], 0.13),
    "CNN1D": (["model=cnn1d"], 0.5),
    "GRU": (["model=gru"], 0.3),
}
WARM = 3
"""Epochs before the clock starts: steps are recorded in them."""


def rows(quick: bool) -> Iterator[Row]:
    """Validation each epoch, best weights and records on; the bare loop has none of them."""
    for what, (overrides, target) in TARGETS.items():
        for members in (32,) if quick else (32, 128):
            pairs = _pairs(overrides, members, WARM + (3 if quick else 7))
            yield Row(f"{what}, {members} members", "bare loop", "µs", pairs, target)


def _pairs(overrides: list[str], members: int, epochs: int) -> Pairs:
    """Microseconds a member-step, epoch by epoch, each beside an epoch of the bare loop."""
    from omegaconf import OmegaConf

    from truerisk.config.compose import compose
    from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup

    given = [*overrides, f"trainer.max_epochs={epochs}", "checkpoint_seconds=1000", "threads=1"]
    pairs = Pairs()
    with TemporaryDirectory() as folder:
        cfg = compose(given)
        cells = [OmegaConf.merge(cfg, {"seed": {"base": i}}) for i in range(members)]
        jobs = [GroupJob(cell, Path(folder) / str(i), {}) for i, cell in enumerate(cells)]
        watch = Watch(jobs[0].cfg, epochs, pairs)
        StackedGroup(jobs, tell=watch.tell).train()
    return pairs


class Watch:
    """Times each epoch of a block, and lets the bare loop take an epoch after it.

    Both are computing time of their one thread, which others on the machine change least.
    """

    def __init__(self, cfg: Any, epochs: int, pairs: Pairs) -> None:
        from truerisk.assemble import assemble

        self.bare, self.pairs, self.epochs = Bare(assemble(cfg)), pairs, epochs
        self.steps, self.members, self.began = 0, 0, 0.0

    def tell(self, taken: int, _done: float) -> None:
        """The first step of an epoch comes after the measurement of the epoch before."""
        self.steps += taken > 0
        if taken == 0 or self.steps % self.bare.steps != 1:
            return
        epoch = self.steps // self.bare.steps % self.epochs
        if epoch > WARM:
            took = (process_time() - self.began) / (self.bare.steps * taken)
            self.pairs.add(1e6 * took, 1e6 * self.bare.epoch())
        self.began = process_time()


class Bare:
    """The same model and data with fused Adam, and nothing else."""

    def __init__(self, recipe: Any) -> None:
        import torch

        self.model: nn.Module = recipe.model
        train = recipe.data.train.to("cpu", torch.float32)
        self.x, self.y, self.size = train.x, train.y, recipe.data.batch_size
        self.steps = recipe.plan().steps_per_epoch
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.001, fused=True)

    def epoch(self) -> float:
        """Seconds a step."""
        import torch
        from torch.nn.functional import cross_entropy

        began = process_time()
        for index in torch.randperm(len(self.y)).split(self.size):
            self.optimizer.zero_grad()
            outputs = self.model(self.x.index_select(0, index))
            cross_entropy(outputs, self.y.index_select(0, index)).backward()
            self.optimizer.step()
        return (process_time() - began) / self.steps
