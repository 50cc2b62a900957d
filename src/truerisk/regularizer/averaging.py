"""Averages of the weights: exponential (EMA), and over the ends of the last epochs (SWA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.base import Regularizer


class WeightAverage(Regularizer):
    """Keeps an average of the weights, to evaluate in place of the model's own.

    Floating-point entries are averaged; others, such as counters, are copied. ``averaged`` hands
    out the average itself, which later steps change: whoever keeps it must copy it.

    The average is not a point the run went through, so batch-norm statistics are measured anew for
    it, over the whole training set each time that it is measured.
    """

    refresh_statistics = True

    def __init__(self) -> None:
        self._average: dict[str, Tensor] | None = None
        self._floating: list[str] | None = None
        self._others: list[str] = []

    @torch.no_grad()
    def add_state(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Move the average: average ← average + weight · (state − average).

        Args:
            state: parameters and running statistics by name; the first ones are taken as they are.
            weight: how far to move, in [0, 1].
        """
        if self._average is None:
            self._average = {name: t.detach().clone() for name, t in state.items()}
            return
        average, floating = self._average, self._floating or self._prepare(state)
        torch._foreach_lerp_([average[n] for n in floating], [state[n] for n in floating], weight)
        for name in self._others:
            average[name].copy_(state[name])

    def _prepare(self, state: Mapping[str, Tensor]) -> list[str]:
        """List the entries to be averaged, and bring a restored average to the model's device."""
        assert self._average is not None
        # A checkpoint is loaded to the CPU, wherever the model is; one of an earlier version may
        # hold buffers that are no averages.
        kept = {n: t for n, t in self._average.items() if n in state}
        self._average = {n: t.to(state[n].device) for n, t in kept.items()}
        self._floating = [n for n, t in state.items() if t.is_floating_point() or t.is_complex()]
        self._others = [n for n in state if n not in set(self._floating)]
        return self._floating

    def averaged(self) -> Mapping[str, Tensor] | None:
        """Return the average so far; None before the first state."""
        return self._average

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a stored average."""
        stored = state["average"]
        # cloned: the checkpoint's tensors may be those of another average that goes on
        self._average = None if stored is None else {n: t.clone() for n, t in stored.items()}
        self._floating = None


class EMA(WeightAverage):
    """Exponential moving average: ``w̄₁ = w₁``, ``w̄ₜ = d w̄ₜ₋₁ + (1 − d) wₜ`` after step t.

    The average is evaluated and kept, with batch-norm statistics measured anew for it: those of a
    run's first steps, averaged, are far off. Training goes on with w. With ``warmup``, d is
    ``min(decay, (1 + t)/(10 + t))``, so that a short run forgets its first steps.

    Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J.
    Control Optim. 30 (1992); exponential, as in Tarvainen & Valpola, "Mean Teachers", NeurIPS 2017.

    Args:
        decay: d in [0, 1]; it remembers about 1/(1 − d) steps.
        warmup: whether d starts small.

    >>> ema = EMA(0.5, warmup=False)
    >>> for step, w in enumerate([0.0, 4.0, 4.0], 1):
    ...     ema.average({"w": torch.tensor(w)}, step)
    >>> ema.averaged()
    {'w': tensor(3.)}
    """

    stacks = ("decay",)

    def __init__(self, decay: float, warmup: bool = True) -> None:
        super().__init__()
        self.decay = check_float("regularizer.ema.decay", decay, 0, 1)
        self.warmup = warmup

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Add the weights after an optimizer step.

        Args:
            state: parameters and running statistics by name.
            step: the number of the step, from 1.
        """
        d = self.decay
        if self.warmup:
            d = min(d, (1 + step) / (10 + step))
        self.add_state(state, 1 - d)


class SWA(WeightAverage):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs.

    ``w̄ₖ = w̄ₖ₋₁ + (wₖ − w̄ₖ₋₁)/k`` at the k-th epoch end from ``start`` on. Until then the
    model's own weights are evaluated. It pays with a learning rate that stays high until the end
    (``scheduler=constant`` or ``cyclic``).

    Source: Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, "Averaging Weights Leads to Wider
    Optima and Better Generalization", UAI 2018, Algorithm 1.

    Args:
        start: share of the run's steps after which epoch ends count, in [0, 1].

    >>> swa = SWA(start=0.5)
    >>> swa.start(steps=4, steps_per_epoch=1)
    >>> for step, w in enumerate([9.0, 1.0, 2.0, 6.0], 1):
    ...     swa.average({"w": torch.tensor(w)}, step)
    >>> swa.averaged()
    {'w': tensor(3.)}
    """

    stacks = ("start",)

    def __init__(self, start: float = 0.75) -> None:
        super().__init__()
        self.start_share = check_float("regularizer.swa.start", start, 0, 1)
        self.count, self._first_step, self._steps_per_epoch = 0, 0.0, 1

    def start(self, steps: int, steps_per_epoch: int) -> None:
        """Set from which step on, and how often, weights are averaged.

        Args:
            steps: optimizer steps of the run.
            steps_per_epoch: optimizer steps of an epoch.
        """
        self._first_step, self._steps_per_epoch = self.start_share * steps, steps_per_epoch

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Add the weights after an optimizer step, if an epoch ends with it.

        Args:
            state: parameters and running statistics by name.
            step: the number of the step, from 1.
        """
        if step % self._steps_per_epoch == 0 and step >= self._first_step:
            self.count += 1
            self.add_state(state, 1 / self.count)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and of how many weights it is one."""
        return super().state_dict() | {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a stored average."""
        super().load_state_dict(state)
        self.count = state["count"]
