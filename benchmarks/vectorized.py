"""A step of one of many members trained together, with all that a run has around its steps.

Beside a bare loop, and beside JAX where an environment has it: ``JAX_PYTHON``, by default that of
``.venv-jax`` in the project's folder (``pip install jax optax``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.process import ROOT
from benchmarks.rounds import Pairs
from benchmarks.row import Row

if TYPE_CHECKING:
    from torch import nn

TARGETS = {
    "MLP 40-100-10": (["model=mlp", "model.depth=1"], 0.15, 0.6),
    "MLP 40-100-100-10": (["model=mlp"], 0.22, 0.6),
    "softmax regression": (["model=linear"], 0.1, 0.6),
    "CNN1D": (["model=cnn1d"], 0.28, 0.12),
    "GRU": (["model=gru"], 0.13, 0.7),
}
"""Overrides, and the ratios asked for: over the bare loop and over JAX."""
WARM = 3
"""Epochs before the clock starts: steps are recorded in them."""


def rows(quick: bool) -> Iterator[Row]:
    """Validation each epoch, best weights and records on; the bare loop has none of them."""
    python = Path(os.environ.get("JAX_PYTHON", ROOT / ".venv-jax" / "bin" / "python"))
    if not python.exists():
        print("no JAX: name a Python that has it and optax by JAX_PYTHON", file=sys.stderr)
    for what, (overrides, over_bare, over_jax) in TARGETS.items():
        for members in (32,) if quick else (32, 128):
            jax = JaxPeer(python, what, members) if python.exists() else None
            bare, beside = _measure(overrides, members, WARM + (3 if quick else 7), jax)
            row = f"{what}, {members} members"
            yield Row(row, "bare loop", "µs", bare, over_bare)
            if beside.measured:
                yield Row(row, "JAX", "µs", beside, over_jax)


def _measure(
    overrides: list[str], members: int, epochs: int, jax: JaxPeer | None
) -> tuple[Pairs, Pairs]:
    """Microseconds a member-step, epoch by epoch, each beside an epoch of the peers."""
    from omegaconf import OmegaConf

    from truerisk.config.compose import compose
    from truerisk.core.errors import Interrupted
    from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup

    # as long a run as one that is worth compiling, of which only the first epochs are taken
    given = [*overrides, "trainer.max_epochs=100", "checkpoint_seconds=1000", "threads=1"]
    with TemporaryDirectory() as folder:
        cfg = compose(given)
        # of the same data, as the peers have one copy of theirs
        seeds = [{"seed": {"base": i, "data": 0}} for i in range(members)]
        cells = [OmegaConf.merge(cfg, seed) for seed in seeds]
        jobs = [GroupJob(cell, Path(folder) / str(i), {}) for i, cell in enumerate(cells)]
        watch = Watch(jobs[0].cfg, epochs, jax)
        group = StackedGroup(jobs, tell=watch.tell)
        watch.on_enough = partial(group.request_stop, "SIGTERM")
        with suppress(Interrupted):
            group.train()
    return watch.over_bare, watch.over_jax


class JaxPeer:
    """A block in JAX, in a process of its own, which takes an epoch when it is asked to.

    Args:
        python: an interpreter that has JAX and optax.
        model: one of ``TARGETS``.
        members: of the block.
    """

    def __init__(self, python: Path, model: str, members: int) -> None:
        alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        script = Path(__file__).parent / "peers" / "jax_block.py"
        self.process = subprocess.Popen(
            [python, script, model, str(members)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XLA_FLAGS": alone, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(WARM):  # it compiles in the first two
            self.epoch()

    def epoch(self) -> float:
        """Take an epoch; gives seconds a member-step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


class Watch:
    """Times each epoch of the first block, and lets the peers take an epoch after it.

    All are computing time of their one thread, which others on the machine change least.
    """

    def __init__(self, cfg: Any, epochs: int, jax: JaxPeer | None) -> None:
        from truerisk.assemble import assemble

        self.bare, self.jax, self.epochs = Bare(assemble(cfg)), jax, epochs
        self.over_bare, self.over_jax = Pairs(), Pairs()
        self.steps, self.members, self.began = 0, 0, 0.0
        self.on_enough: Callable[[], None] = lambda: None

    def tell(self, taken: int, _done: float) -> None:
        """The first steps of an epoch come after the measurement of the epoch before."""
        # the very first step is one, before it is compiled
        self.members = self.members or taken
        epoch, begun = divmod(self.steps, self.bare.steps)
        self.steps += taken // max(1, self.members)
        if taken == 0 or begun:
            return
        if epoch >= self.epochs:
            self.on_enough()
        if epoch > WARM:
            took = (process_time() - self.began) / (self.bare.steps * self.members)
            self.over_bare.add(1e6 * took, 1e6 * self.bare.epoch())
            if self.jax is not None:
                self.over_jax.add(1e6 * took, 1e6 * self.jax.epoch())
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
