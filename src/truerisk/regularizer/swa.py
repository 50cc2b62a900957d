"""Stochastic weight averaging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.averaging import Averaging


class SWA(Averaging):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs.

    ``w̄ₖ = w̄ₖ₋₁ + (wₖ − w̄ₖ₋₁)/k`` at the k-th epoch end from ``start`` on. Until then the
    model's own weights are evaluated. The average is not a point the run went through, so
    batch-norm statistics are measured anew for it. It pays with a learning rate that stays high
    until the end (``scheduler=constant`` or ``cyclic``).

    Source: Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, "Averaging Weights Leads to Wider
    Optima and Better Generalization", UAI 2018, Algorithm 1.

    Args:
        start: share of the run's steps after which epoch ends count, in [0, 1].

    >>> import torch
    >>> swa = SWA(start=0.5)
    >>> swa.start(steps=4, steps_per_epoch=1)
    >>> for step, w in enumerate([9.0, 1.0, 2.0, 6.0], 1):
    ...     swa.average({"w": torch.tensor(w)}, step)
    >>> swa.averaged()
    {'w': tensor(3.)}
    """

    refresh_statistics = True

    def __init__(self, start: float = 0.75) -> None:
        super().__init__()
        self.start_share = check_float("regularizer.swa.start", start, 0, 1)
        self.count, self._first, self._every = 0, 0.0, 1

    def start(self, steps: int, steps_per_epoch: int) -> None:
        """Learn when to begin, and how long an epoch is."""
        self._first, self._every = self.start_share * steps, steps_per_epoch

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights if an epoch has ended."""
        if step % self._every == 0 and step >= self._first:
            self.count += 1
            self.take(state, 1 / self.count)

    def state_dict(self) -> dict[str, Any]:
        """The average, and of how many."""
        return super().state_dict() | {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a stored average."""
        super().load_state_dict(state)
        self.count = state["count"]
