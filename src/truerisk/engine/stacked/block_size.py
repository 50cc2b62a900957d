"""How many members train at once: the memory that is free, and what a member takes of it."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.data.split import cast
from truerisk.data.token_rows import TokenSplit
from truerisk.engine.precision import DevicePrecision
from truerisk.engine.stacked.measuring import widest_layer
from truerisk.objective import Objective
from truerisk.recipe import Recipe

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
KEPT = 2**30
"""Bytes up to which freed memory stays with the process."""
SMALL = 2**17
"""Bytes of a tensor up to which it does where memory is short, as by glibc itself."""


def keep_freed_memory(largest: int = KEPT) -> None:
    """Have glibc keep what a step frees, for the next one; elsewhere do nothing.

    Args:
        largest: bytes of a tensor that is kept so.
    """
    # By itself it gives tensors of a megabyte back to the system and asks for them again, which
    # clears every page: relu on a stack of members took 30 times as long as its arithmetic.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, largest)
        mallopt(TRIM_THRESHOLD, KEPT)


def give_freed_memory_back() -> None:
    """Have glibc give the system what has been freed; elsewhere do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out."""
    # on a CPU it is a RuntimeError like any other
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        word in str(error) for word in words
    )


def free_memory(device: torch.device) -> float:
    """Read how many bytes are free for this process on a device; infinite where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_read_available(Path("/proc/meminfo")), _read_remaining(_find_control_group()))


def _read_available(meminfo: Path) -> float:
    """Read the bytes that the kernel can hand out without swapping."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return math.inf


def _find_control_group() -> Path:
    """Find the folder of this process's control group (Linux's, version 2)."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("0::/")[2]
    except OSError:
        own = ""
    return Path("/sys/fs/cgroup") / own


def _read_remaining(group: Path) -> float:
    """Read the bytes that a container's limit leaves."""
    try:
        limit, used = (float((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # the kernel takes back its file cache when it must
        return limit - used + float(stat["inactive_file"])
    except (OSError, KeyError, ValueError):
        return math.inf


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


def choose_block_size(recipe: Recipe, place: DevicePrecision, processes: int = 1) -> int:
    """Choose how many members to train at once: the more, the smaller they and their layers are.

    Args:
        recipe: that of a member; its model is moved to the dtype of ``place``.
        place: the device and the precision.
        processes: how many share the device's memory, each with as many members.
    """
    recipe.model.to(dtype=place.dtype)
    memory = SHARE * free_memory(place.device) / processes
    fitting = memory / estimate_footprint(recipe, place)
    return max(1, math.floor(min(_count_cached_members(recipe, place), fitting)))


def _count_cached_members(recipe: Recipe, place: DevicePrecision) -> int:
    """Count the members whose tensors stay in the caches."""
    most = min(LARGEST, NUMBERS // sum(p.numel() for p in recipe.model.parameters()))
    if place.device.type == "cpu":
        width = widest_layer(recipe.model, _first_batch(recipe, place.dtype).x)
        most = min(most, OUTPUTS // (recipe.plan().micro * width))
    return max(SMALLEST, most)


def even_block_size(cells: int, size: int) -> int:
    """Return the size of as few blocks as can be, all much of a size.

    Args:
        cells: how many there are.
        size: the largest size of a block.

    >>> even_block_size(32, 25), even_block_size(128, 51), even_block_size(3, 16)
    (16, 43, 3)
    """
    return -(-cells // -(-cells // size))


def estimate_footprint(recipe: Recipe, place: DevicePrecision) -> int:
    """Estimate the bytes that a member takes while it trains.

    Copies of its weights; what autograd is seen to keep of a forward pass on the first batch, and
    as much again on the way back; and its samples, as the run has them and as the stack has them,
    unless all members read them out of a file.

    Args:
        recipe: the member's.
        place: the device and the precision.
    """
    model, data = recipe.model.to(dtype=place.dtype), recipe.data
    splits = [s for s in (data.train, data.val, data.test) if s is not None]
    batch = _first_batch(recipe, place.dtype)
    kept = _measure_graph(
        Objective(model, recipe.surrogate.to(place.dtype), recipe.hooks("penalty")), batch
    )
    weights = sum(_count_bytes(tensor, place.dtype) for tensor in model.state_dict().values())
    inputs = _count_bytes(batch.x[0], place.dtype)
    samples = sum(
        len(split) * inputs + _count_bytes(split.y, place.dtype)
        for split in splits
        if not isinstance(split, TokenSplit)
    )
    return COPIES * weights + 2 * kept + 2 * samples


def _first_batch(recipe: Recipe, dtype: torch.dtype) -> Batch:
    index, _share = next(recipe.plan().epoch(0))[0]
    batch = next(recipe.data.train.batches([index]))
    return Batch(cast(batch.x, "cpu", dtype), cast(batch.y, "cpu", dtype))


def _measure_graph(objective: Objective, batch: Batch) -> int:
    """Measure the bytes that autograd keeps of a forward pass."""
    sizes: dict[int, int] = {}

    def note_size(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(note_size, _identity),
    ):
        _graph = objective(None, batch)
        return sum(sizes.values())


def _identity(tensor: Any) -> Any:
    return tensor


def _count_bytes(tensor: Tensor, dtype: torch.dtype) -> int:
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.numel() * kind.itemsize
