"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.averaging import Averaging


class EMA(Averaging):
    """Exponential moving average: ``w̄₁ = w₁``, ``w̄ₜ = d w̄ₜ₋₁ + (1 − d) wₜ`` after step t.

    The average is evaluated and kept; training goes on with w. Buffers such as running statistics
    are averaged alike. With ``warmup``, d is ``min(decay, (1 + t)/(10 + t))``, so that a short run
    forgets its first steps.

    Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J.
    Control Optim. 30 (1992); exponential, as in Tarvainen & Valpola, "Mean Teachers", NeurIPS 2017.

    Args:
        decay: d in [0, 1]; it remembers about 1/(1 − d) steps.
        warmup: whether d starts small.

    >>> import torch
    >>> ema = EMA(0.5, warmup=False)
    >>> for step, w in enumerate([0.0, 4.0, 4.0], 1):
    ...     ema.average({"w": torch.tensor(w)}, step)
    >>> ema.averaged()
    {'w': tensor(3.)}
    """

    def __init__(self, decay: float, warmup: bool = True) -> None:
        super().__init__()
        self.decay = check_float("regularizer.ema.decay", decay, 0, 1)
        self.warmup = warmup

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        self.take(state, 1 - decay)
