"""The input-gradient penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel

from truerisk.core.checks import check_float
from truerisk.regularizer.base import Forward, Regularizer
from truerisk.regularizer.written_out import WrittenOut


class InputGradient(Regularizer):
    """Double backpropagation: ``λR = λ · mean_i ‖∇ₓ l(f(xᵢ), yᵢ)‖²``.

    Keeps the loss flat around the training samples. It costs a second forward pass and is
    differentiated twice. Where samples of a batch influence each other (batch normalization while
    training), the gradient is that of the batch's summed loss.

    Source: Drucker & LeCun, "Improving Generalization Performance Using Double Backpropagation",
    IEEE Transactions on Neural Networks 3 (1992).

    Args:
        coefficient: λ.
    """

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.input_gradient.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """λ times the mean squared norm of the loss's gradient with respect to the inputs."""
        gradient = input_gradient(forward)
        return self.coefficient * gradient.square().sum() / len(gradient)


def input_gradient(forward: Forward) -> Tensor:
    """∇ₓ Σ l at the batch's inputs, differentiable where gradients are being tracked.

    Ordinary autograd, because batch normalization cannot update its statistics inside
    ``torch.func.grad``; but that is the only way inside another ``torch.func`` transform, which
    shows by refusing ``requires_grad_``.
    """

    def total(x: Tensor) -> Tensor:
        # Fused attention and cuDNN's recurrent layers cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=False), WrittenOut():
            return forward.losses_at(x).sum()

    try:
        x = forward.batch.x.detach().requires_grad_()
    except RuntimeError:
        return torch.func.grad(total)(forward.batch.x)
    tracking = torch.is_grad_enabled()
    with torch.enable_grad():
        return torch.autograd.grad(total(x), x, create_graph=tracking)[0]
