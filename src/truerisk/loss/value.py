"""The loss of a test function: its value."""

from __future__ import annotations

from torch import Tensor, nn


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
