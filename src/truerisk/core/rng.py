"""Random streams: every draw comes from a named one, and all of them survive a restart."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def named_generator(seed: int, *names: str | int) -> torch.Generator:
    """Make a CPU generator that depends on the seed and the names alone.

    Args:
        seed: of a stream; see `truerisk.core.seeds`.
        names: what is drawn, so that no two draws share their numbers.

    >>> a, b = named_generator(0, "split"), named_generator(0, "split")
    >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
    True
    """
    # hashed, so that neighbouring seeds and names have nothing in common; torch's Mersenne Twister
    # takes 32 bits of a seed
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def draw_permutation(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a permutation [n], in half the memory of ``torch.randperm(n)`` and with its numbers.

    Args:
        n: how many; int32 where that is enough.
        generator: of the draws.

    >>> draw = torch.Generator()
    >>> draw_permutation(4, draw.manual_seed(0)), torch.randperm(4, generator=draw.manual_seed(0))
    (tensor([0, 1, 3, 2], dtype=torch.int32), tensor([0, 1, 3, 2]))
    """
    kind = torch.int32 if n <= torch.iinfo(torch.int32).max else torch.int64
    return torch.randperm(n, generator=generator, dtype=kind)


def seed_torch(seed: int) -> None:
    """Seed torch's global generators: the CPU's, and those of the devices in use.

    Args:
        seed: the same one for each of them.

    >>> seed_torch(3)
    >>> torch.initial_seed()
    3
    """
    # `torch.manual_seed` formats the stack once for each kind of device that is not in use, so as
    # to seed it later: a millisecond below fifty frames, where the seeding itself takes two µs
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def get_state() -> dict[str, Any]:
    """Return the states of the global generators, loadable with ``weights_only=True``."""
    # numbers, lists and tensors only: what loading with `weights_only` takes
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = legacy
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_state(saved: dict[str, Any]) -> None:
    """Set the global generators to a saved state; see `get_state`."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))


@contextmanager
def fork_state() -> Iterator[None]:
    """Restore the global generators after the block."""
    before = get_state()
    try:
        yield
    finally:
        set_state(before)


@contextmanager
def fork_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block, and restore them after it."""
    # all three, as a package may draw from any of them
    with fork_state():
        seed_torch(seed)
        np.random.seed(seed % 2**32)  # more bits are refused
        random.seed(seed)
        yield
