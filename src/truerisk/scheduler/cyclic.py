"""Triangular cycles."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR

from truerisk.core.errors import ConfigError
from truerisk.scheduler.momentum import mirror


class Cyclic(CyclicLR):
    """Triangles between base_factor·lr and the optimizer's own learning rate lr.

    The shape is that of ``torch.optim.lr_scheduler.CyclicLR``; source: Smith (2017). The top is
    each group's own learning rate, so that sweeping ``optimizer.lr`` sweeps it and groups keep
    their ratios. Momentum falls from ``max_momentum`` to ``base_momentum`` as the rate rises, and
    comes back as it falls; optimizers without momentum are left alone.

    Args:
        optimizer: whose learning rates are scheduled.
        base_factor: bottom over top, in (0, 1).
        step_size_up: steps of a rise.
        step_size_down: steps of a fall; None: as many.
        mode: ``triangular``, ``triangular2`` (half as high every cycle) or ``exp_range``.
        gamma: in ``exp_range`` the height is multiplied by gammaᵗ.
        cycle_momentum: whether momentum mirrors the learning rate.
        base_momentum: momentum at the top.
        max_momentum: momentum at the bottom.

    Raises:
        ConfigError: a number is out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> Cyclic(optimizer, base_factor=0.5, step_size_up=2).get_last_lr()
    [0.5]
    """

    lengths = ("step_size_up", "step_size_down")

    def __init__(
        self,
        optimizer: Optimizer,
        step_size_up: int,
        base_factor: float = 0.1,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < base_factor < 1:
            raise ConfigError(f"scheduler.base_factor is {base_factor}; it must lie in (0, 1)")
        self.mirrored = cycle_momentum
        self.low_momentum, self.high_momentum = base_momentum, max_momentum
        lows = [base_factor * group["lr"] for group in optimizer.param_groups]
        self.base_lrs = [*lows]
        try:
            super().__init__(
                optimizer,
                base_lr=lows,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                step_size_up=step_size_up,
                step_size_down=step_size_down,
                mode=mode,
                gamma=gamma,
                cycle_momentum=False,
                last_epoch=last_epoch,
            )
        except ValueError as error:
            raise ConfigError(f"scheduler.mode is {mode!r}: {error}") from error

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rates at the current step; sets the momenta too."""
        rates = [float(rate) for rate in super().get_lr()]
        if self.mirrored:
            ends = zip(rates, self.base_lrs, self.max_lrs, strict=True)
            heights = [(lr - low) / (high - low) for lr, low, high in ends]
            mirror(self.optimizer, heights, self.low_momentum, self.high_momentum)
        return rates
