"""Random streams: every draw comes from a named one, and all of them survive a restart."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def stream(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator that depends on the seed and the names alone.

    >>> a, b = stream(0, "split"), stream(0, "split")
    >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
    True
    """
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def state() -> dict[str, Any]:
    """The global generators of torch, NumPy and Python, loadable with ``weights_only=True``."""
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = legacy
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def restore(saved: dict[str, Any]) -> None:
    """Set the global generators to a saved state."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))


@contextmanager
def kept() -> Iterator[None]:
    """Give the global generators back as they were."""
    before = state()
    try:
        yield
    finally:
        restore(before)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block; outside, nothing has changed."""
    with kept():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
