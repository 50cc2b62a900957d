"""No schedule."""

from __future__ import annotations

from torch.optim.lr_scheduler import LRScheduler


class Constant(LRScheduler):
    """The learning rate stays as it is: lrₜ = lr.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> Constant(optimizer).get_last_lr()
    [0.1]
    """

    last_index = 0
    """Where the schedule ends: there is nothing to do after its first value."""

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The groups' learning rates."""
        return [group["lr"] for group in self.optimizer.param_groups]
