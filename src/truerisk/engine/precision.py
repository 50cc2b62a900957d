"""Where a run computes, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from truerisk.core.mixed_precision import compute_in_half

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
"""Those that a run may have."""


class DevicePrecision(NamedTuple):
    """A device and a precision, as ``trainer`` names them.

    Args:
        device: where weights and samples lie.
        precision: ``32-true``, ``64-true``, ``bf16-mixed`` or ``16-mixed``.
    """

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and samples."""
        return torch.float64 if self.precision == "64-true" else torch.float32

    @contextmanager
    def default_dtype(self) -> Iterator[None]:
        """Let new tensors have the type of the weights inside the block."""
        # torch has one default for the whole process, and no context manager for it
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in half precision inside the block, where the precision is mixed."""
        if not self.precision.endswith("-mixed"):
            return nullcontext()
        half = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return compute_in_half(self.device.type, half)

    def make_scaler(self) -> torch.amp.GradScaler | None:
        """Make the loss scaler that float16 needs; None for any other precision."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "16-mixed" else None


def choose_device(trainer: Mapping[str, Any]) -> DevicePrecision:
    """Choose the device of a run in one process.

    Args:
        trainer: the ``trainer`` node of a configuration.

    Returns:
        The device and the precision.
    """
    kind = trainer["accelerator"]
    cuda = torch.cuda.is_available()
    if (kind in ("gpu", "cuda") and (cuda or kind == "cuda")) or (kind == "auto" and cuda):
        device = torch.device("cuda")
    elif kind in ("mps", "gpu"):
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    return DevicePrecision(device, trainer["precision"])
