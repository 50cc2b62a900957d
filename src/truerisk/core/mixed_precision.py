"""Half precision where it pays, on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Asked once: the operator has no place in a trace, nor in builds without oneDNN (macOS).
_HAS_BFLOAT16 = (
    torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)


@contextmanager
def compute_in_half(device: str, half: torch.dtype) -> Iterator[None]:
    """Compute in half precision inside the block, where torch's autocast takes it.

    Args:
        device: the type of the device.
        half: ``torch.bfloat16`` or ``torch.float16``.
    """
    before = torch.backends.mkldnn.enabled
    # On a CPU without AVX-512 oneDNN has no LSTM in bfloat16, and under autocast torch 2.13 asks
    # for it all the same: a RuntimeError. Convolutions and products do not go there anyway.
    lacking = device == "cpu" and not _HAS_BFLOAT16
    # A line search moves the weights between two passes: their casts must not be kept.
    with torch.autocast(device, half, cache_enabled=False):
        try:
            if lacking and before:
                torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
            yield
        finally:
            if lacking and before:
                torch.backends.mkldnn.enabled = before
