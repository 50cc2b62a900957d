"""Train blocks of MLPs, then print how many MiB they took and how many they need at least.

``python -m benchmarks.block MEMBERS BLOCKS``; on Linux alone, as it asks the kernel.
"""

from __future__ import annotations

import ctypes
import math
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import pairwise

import torch

from benchmarks.ours import CONF
from benchmarks.peak import mebibytes
from benchmarks.task import mnist_sized
from truerisk.cli import main

WIDTHS = (784, 100, 10)
KEPT = 4
"""Numbers for each weight: itself, Adam's two moments, and the best one."""
STEPS = 1010
"""They are compiled, as 1,000 are."""
COMMON = ("train", "-m", "report=false", "threads=1", "model=mlp", f"model.widths=[{WIDTHS[1]}]")


def train_blocks(study: str, members: int, blocks: int, *overrides: str) -> None:
    """Train blocks of members that differ in their learning rates."""
    rates = ",".join(f"{1e-4 * (i + 1):.5f}" for i in range(members * blocks))
    launched = ["hydra/launcher=vectorized", f"hydra.launcher.size={members}"]
    given = [*COMMON, f"study={study}", *overrides, f"optimizer.lr={rates}", *launched]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        assert main(given) == 0


def count_least(members: int) -> float:
    """MiB of what a block cannot do without: one copy of the data, and its members' numbers."""
    weights = sum((a + 1) * b for a, b in pairwise(WIDTHS))
    data = sum(tensor.nbytes for tensor in mnist_sized())
    return (data + KEPT * members * weights * torch.float32.itemsize) / 2**20


def measure_blocks(members: int, blocks: int) -> float:
    """MiB at the most, beyond a process that has trained a block of small members."""
    train_blocks("small", 2, 1, "data=iris", "data.batch_size=8", f"trainer.max_steps={STEPS}")
    ctypes.CDLL(None).malloc_trim(0)  # what it has freed would be a block's to take
    before = mebibytes("VmRSS")
    large = ["--config-dir", str(CONF), "data=mnist_sized", "data.batch_size=128"]
    ends = [f"trainer.max_steps={STEPS}", f"trainer.max_epochs={math.ceil(STEPS / 400)}"]
    train_blocks("large", members, blocks, *large, *ends)
    return mebibytes() - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    members, blocks = map(int, sys.argv[1:])
    print(measure_blocks(members, blocks), count_least(members))
