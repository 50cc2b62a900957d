"""What regularizers that average weights have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from truerisk.regularizer.base import Regularizer


class Averaging(Regularizer):
    """Keeps an average of parameters and buffers, to evaluate in place of the model's own.

    Floating-point entries are averaged; others, such as counters, are copied. ``averaged`` hands
    out the average itself, which later steps change: whoever keeps it must copy it.
    """

    def __init__(self) -> None:
        self._average: dict[str, Tensor] | None = None
        self._floating: list[str] | None = None
        self._others: list[str] = []

    @torch.no_grad()
    def take(self, state: Mapping[str, Tensor], weight: float) -> None:
        """average ← average + weight · (state − average); the first state is taken as it is."""
        if self._average is None:
            self._average = {name: t.detach().clone() for name, t in state.items()}
            return
        average, floating = self._average, self._floating or self._prepare(state)
        torch._foreach_lerp_([average[n] for n in floating], [state[n] for n in floating], weight)
        for name in self._others:
            average[name].copy_(state[name])

    def _prepare(self, state: Mapping[str, Tensor]) -> list[str]:
        # A restored average lies where the checkpoint was loaded to: bring it to the model.
        assert self._average is not None
        self._average = {n: t.to(state[n].device) for n, t in self._average.items()}
        self._floating = [n for n, t in state.items() if t.is_floating_point() or t.is_complex()]
        self._others = [n for n in state if n not in set(self._floating)]
        return self._floating

    def averaged(self) -> Mapping[str, Tensor] | None:
        """The average so far; None before the first state."""
        return self._average

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a stored average."""
        stored = state["average"]
        self._average = None if stored is None else {n: t.clone() for n, t in stored.items()}
        self._floating = None
