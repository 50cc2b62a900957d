"""The one-cycle policy."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from truerisk.core.errors import ConfigError
from truerisk.scheduler.momentum import mirror


class OneCycle(OneCycleLR):
    """One rise to the optimizer's own learning rate, and one long descent; momentum mirrors it.

    From lr/div_factor up to lr over ``pct_start`` of the cycle, then down to
    lr/(div_factor·final_div_factor), which the last step of the cycle uses and which stays from
    there on. Source: Smith (2018); the shape is that of ``torch.optim.lr_scheduler.OneCycleLR``.

    The peak is each group's own learning rate, so that sweeping ``optimizer.lr`` sweeps it and
    groups keep their ratios. Momentum falls from ``max_momentum`` to ``base_momentum`` as the rate
    rises, and comes back as it falls; optimizers without momentum are left alone.

    Args:
        optimizer: whose learning rates are scheduled.
        total_steps: length of the cycle.
        pct_start: share of the cycle that rises.
        anneal_strategy: cos or linear.
        div_factor: peak over first learning rate.
        final_div_factor: first over last learning rate.
        cycle_momentum: whether momentum mirrors the learning rate.
        base_momentum: momentum at the peak.
        max_momentum: momentum at both ends.

    Raises:
        ConfigError: a number is out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> round(OneCycle(optimizer, total_steps=10, div_factor=25.0).get_last_lr()[0], 6)
    0.04
    """

    lengths = ("total_steps",)

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        last_epoch: int = -1,
    ) -> None:
        self.mirrored, self.last_index = cycle_momentum, total_steps - 1
        self.low_momentum, self.high_momentum = base_momentum, max_momentum
        try:
            super().__init__(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=total_steps,
                pct_start=_off_the_grid(float(pct_start), total_steps),
                anneal_strategy=anneal_strategy,
                cycle_momentum=False,
                div_factor=div_factor,
                final_div_factor=final_div_factor,
                last_epoch=last_epoch,
            )
        except ValueError as error:
            raise ConfigError(f"scheduler: {error}") from error

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rates at the current step; sets the momenta too."""
        rates = [float(rate) for rate in super().get_lr()]
        if self.mirrored:
            ends = "initial_lr" if self.last_epoch <= self.peak else "min_lr"
            groups = zip(self.optimizer.param_groups, rates, strict=True)
            heights = [(lr - g[ends]) / (g["max_lr"] - g[ends]) for g, lr in groups]
            mirror(self.optimizer, heights, self.low_momentum, self.high_momentum)
        return rates

    @property
    def peak(self) -> float:
        """The step with the highest learning rate."""
        return float(self._schedule_phases[0]["end_step"])


def _off_the_grid(pct_start: float, total_steps: int) -> float:
    """A rise of exactly one step would divide zero by zero: start at the peak instead."""
    return 0.0 if pct_start * total_steps == 1 else pct_start
