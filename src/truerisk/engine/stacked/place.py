"""Where a group is trained, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from omegaconf import DictConfig


class Place(NamedTuple):
    """A device and a precision, as ``trainer`` names them."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and samples."""
        return torch.float64 if self.precision == "64-true" else torch.float32

    @contextmanager
    def computing(self) -> Iterator[None]:
        """What Lightning's precision plugins put around a step."""
        with ExitStack() as stack:
            if self.precision == "bf16-mixed":
                # the weights change inside the block, so their casts must not be kept
                half = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)
                stack.enter_context(half)
            if self.precision == "64-true":
                stack.enter_context(_default(torch.float64))
            yield


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def place_of(cfg: DictConfig) -> Place:
    """The place that a configuration's trainer asks for."""
    kind = cfg.trainer.accelerator
    if kind in ("gpu", "cuda") or (kind == "auto" and torch.cuda.is_available()):
        return Place(torch.device("cuda"), cfg.trainer.precision)
    return Place(torch.device("mps" if kind == "mps" else "cpu"), cfg.trainer.precision)
