"""How many members are trained at once: as many as suit the caches, and fit in memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from truerisk.assemble import assemble
from truerisk.core.batch import Batch
from truerisk.core.errors import UserError
from truerisk.data.split import cast
from truerisk.engine.precision import DevicePrecision, choose_device
from truerisk.engine.stacked.measuring import widest_layer
from truerisk.objective import Objective
from truerisk.recipe import Recipe

NUMBERS = 2**19
"""Weights that a block holds: those, their gradients and the optimizer's stay near the core."""

OUTPUTS = 2**20
"""Numbers in the widest layer, for one batch of all members of a block on a CPU: likewise."""

SMALLEST, LARGEST = 16, 128
"""Members in a block, where memory allows."""

SHARE = 0.5
"""The part of the free memory that a group may fill."""

COPIES = 12
"""Weights in memory for each of a member's: the run's own, those in the stack, the best ones,
gradients in the model's layout and in the optimizer's, two moments in the run and in the stack,
and what an update is computed in."""


def choose_block_size(cfg: DictConfig, processes: int = 1) -> int:
    """How many members to train at once, in each of some processes.

    The more, the smaller they and their layers are.
    """
    try:
        recipe = assemble(cfg)
    except UserError:  # told of each cell as it is opened
        return LARGEST
    place = choose_device(cfg.trainer)
    recipe.model.to(dtype=place.dtype)
    fitting = SHARE * free_memory(place.device) / processes / estimate_footprint(recipe, place)
    return max(1, math.floor(min(_near(recipe, place), fitting)))


def _near(recipe: Recipe, place: DevicePrecision) -> int:
    """How many members' tensors stay in the caches."""
    most = min(LARGEST, NUMBERS // sum(p.numel() for p in recipe.model.parameters()))
    if place.device.type == "cpu":
        width = widest_layer(recipe.model, _batch(recipe, place.dtype).x)
        most = min(most, OUTPUTS // (recipe.plan().micro * width))
    return max(SMALLEST, most)


def even_block_size(cells: int, size: int) -> int:
    """The size of blocks of much the same size, at most ``size``.

    >>> even_block_size(32, 25), even_block_size(128, 51), even_block_size(3, 16)
    (16, 43, 3)
    """
    return -(-cells // -(-cells // size))


def estimate_footprint(recipe: Recipe, place: DevicePrecision) -> int:
    """Bytes that a member takes while it trains.

    Copies of its weights; what autograd is seen to keep of a forward pass on the first batch, and
    as much again on the way back; and its samples, as the run has them and as the stack has them.
    """
    model, data = recipe.model.to(dtype=place.dtype), recipe.data
    splits = [s for s in (data.train, data.val, data.test) if s is not None]
    batch = _batch(recipe, place.dtype)
    kept = _kept(Objective(model, recipe.surrogate.to(place.dtype), recipe.hooks("penalty")), batch)
    weights = sum(_bytes(tensor, place.dtype) for tensor in model.state_dict().values())
    samples = sum(_bytes(t, place.dtype) for split in splits for t in (split.x, split.y))
    return COPIES * weights + 2 * kept + 2 * samples


def _batch(recipe: Recipe, dtype: torch.dtype) -> Batch:
    index, _share = next(recipe.plan().epoch(0))[0]
    batch = next(recipe.data.train.batches([index]))
    return Batch(cast(batch.x, "cpu", dtype), cast(batch.y, "cpu", dtype))


def _kept(objective: Objective, batch: Batch) -> int:
    """Bytes that autograd keeps of a forward pass."""
    sizes: dict[int, int] = {}

    def seen(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(seen, _same):
        _value = objective(None, batch)
        return sum(sizes.values())


def _same(tensor: Any) -> Any:
    return tensor


def _bytes(tensor: Tensor, dtype: torch.dtype) -> int:
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.numel() * kind.itemsize


def free_memory(device: torch.device) -> float:
    """Bytes of memory that are free for this process; infinite where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_available(Path("/proc/meminfo")), _left(_control_group()))


def _available(meminfo: Path) -> float:
    """What the kernel can hand out without swapping."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return math.inf


def _control_group() -> Path:
    """The folder of this process's control group (Linux's, version 2)."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("0::/")[2]
    except OSError:
        own = ""
    return Path("/sys/fs/cgroup") / own


def _left(group: Path) -> float:
    """What a container's limit leaves; the kernel takes back its file cache when it must."""
    try:
        limit, used = (float((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + float(stat["inactive_file"])
    except (OSError, KeyError, ValueError):
        return math.inf
