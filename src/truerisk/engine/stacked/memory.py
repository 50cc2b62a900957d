"""Memory: kept from one step to the next, and what to do where it runs out."""

from __future__ import annotations

import ctypes

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
KEPT = 2**30
"""Bytes up to which freed memory stays with the process."""


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees, for the next one.

    By itself it gives tensors of a megabyte back to the system and asks for them again, which
    clears every page: relu on a stack of members took 30 times as long as its arithmetic.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        word in str(error) for word in words
    )
