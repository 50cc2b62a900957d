"""Optimizers that look at a parameter as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from truerisk.core.errors import ConfigError


def refuse_shards(optimizer: str, params: Iterable[Tensor]) -> None:
    """Raise where each process has only a part of each parameter (trainer=fsdp)."""
    if any(hasattr(p, "full_tensor") for p in params):
        raise ConfigError(
            f"{optimizer} needs whole parameters, and trainer=fsdp gives each process a "
            "part of them: use trainer=ddp"
        )
