"""Memory: how much is free, kept from one step to the next, and whether it ran out."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
KEPT = 2**30
"""Bytes up to which freed memory stays with the process."""


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees, for the next one; elsewhere do nothing."""
    # By itself it gives tensors of a megabyte back to the system and asks for them again, which
    # clears every page: relu on a stack of members took 30 times as long as its arithmetic.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)


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
