"""Losses that torch does not have: the multi-class hinge, and a test function's value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError


class Hinge(nn.Module):
    """Multi-class hinge loss of Crammer and Singer, one value a sample.

    ``l(s, y) = max(0, margin + max_{j≠y} s_j − s_y)``

    Only the strongest rival counts. ``torch.nn.MultiMarginLoss`` is another one, which averages
    over all rivals (Weston & Watkins 1999). This one is made of plain tensor operations, so it can
    be differentiated twice and mapped with ``torch.vmap``.

    Shapes: scores [n, K], labels [n] of int64; returns [n].

    Source: Crammer & Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines", JMLR 2 (2001), §3.

    Args:
        margin: lead over the strongest rival below which a sample costs something.

    Raises:
        ConfigError: the margin is not positive.

    >>> Hinge()(torch.tensor([[2.0, 1.5, -1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 0.0000])
    """

    task = "classification"

    stacks = ("margin",)

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ConfigError(f"loss.margin={margin} must be greater than 0")
        self.margin = margin

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            scores: [n, K].
            labels: int64 [n].
        """
        labels = labels.unsqueeze(-1)
        true_score = scores.gather(-1, labels)
        # scattered rather than masked, which vmap could not map over
        rival = scores.scatter(-1, labels, -torch.inf).amax(-1, keepdim=True)
        return (self.margin + rival - true_score).clamp(min=0).squeeze(-1)

    def extra_repr(self) -> str:
        """Show the margin."""
        return f"margin={self.margin}"


class Value(nn.Module):
    """l = the model's output: what there is to minimise where there is no data.

    Shapes: outputs [n, 1], and targets of any kind, which are not looked at; returns [n].

    >>> import torch
    >>> Value()(torch.tensor([[3.0]]), torch.zeros(1, 1))
    tensor([3.])
    """

    task = "function"

    def forward(self, outputs: Tensor, _targets: Tensor) -> Tensor:
        """Return the value, once a sample, [n].

        Args:
            outputs: [n, 1].
            _targets: of any kind.
        """
        return outputs.squeeze(-1)
