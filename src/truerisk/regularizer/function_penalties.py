"""Penalties on the function that the model computes: undue confidence, steep losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus

from truerisk.core.checks import check_float
from truerisk.core.deterministic import DifferentiableNorms
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Forward, Regularizer


class Entropy(Regularizer):
    """Confidence penalty: ``λR = −β · mean_i H(p(·|xᵢ))``, which rewards undecided predictions.

    p is the softmax of the outputs [n, K], or the sigmoid of a single output, and
    ``H(p) = −Σ_k p_k log p_k`` in nats. The penalty lies between −β log K (uniform) and 0
    (certain). It is for classification.

    Source: Pereyra, Tucker, Chorowski, Kaiser & Hinton, "Regularizing Neural Networks by Penalizing
    Confident Output Distributions", ICLR workshop 2017, §3.1.

    Args:
        coefficient: β.

    Raises:
        ConfigError: the targets are not class labels.

    >>> entropy(torch.zeros(1, 4))
    tensor([1.3863])
    """

    stacks = ("coefficient",)
    requires = ("samples", "class probabilities")

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.entropy.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """Return −β times the mean entropy, a scalar."""
        if forward.batch.y.is_floating_point():
            raise ConfigError(
                "regularizer=entropy needs class probabilities, but the data's task is regression: "
                "leave entropy out, or pick data with classes"
            )
        return -self.coefficient * entropy(forward.outputs).mean()


def entropy(outputs: Tensor) -> Tensor:
    """Compute H of the softmax of [n, K] outputs, or of the sigmoid of [n, 1], in nats: [n]."""
    # in 16 bits, p log p of an unlikely class would be rounded away
    if outputs.dtype.itemsize < 4:
        outputs = outputs.float()
    if outputs.shape[-1] == 1:
        z = outputs.squeeze(-1)
        return softplus(z) - z * z.sigmoid()
    log_p = outputs.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


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

    stacks = ("coefficient",)
    requires = ("samples", "real inputs")

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.input_gradient.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """Return λ times the mean squared norm of the loss's gradient by the inputs, a scalar."""
        gradient = input_gradient(forward)
        return self.coefficient * gradient.square().sum() / len(gradient)


def input_gradient(forward: Forward) -> Tensor:
    """Compute ∇ₓ Σ l at the batch's inputs, [n, *input_shape].

    It is differentiable where gradients are being tracked.
    """

    def summed_loss(x: Tensor) -> Tensor:
        # fused attention and cuDNN's recurrent layers cannot be differentiated twice
        with sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=False), DifferentiableNorms():
            return forward.losses_at(x).sum()

    # Ordinary autograd where it works: batch normalization cannot update its statistics inside
    # `torch.func.grad`. Inside another `torch.func` transform, where that is the only way,
    # `requires_grad_` raises.
    try:
        x = forward.batch.x.detach().requires_grad_()
    except RuntimeError:
        return torch.func.grad(summed_loss)(forward.batch.x)
    tracking = torch.is_grad_enabled()
    with torch.enable_grad():
        return torch.autograd.grad(summed_loss(x), x, create_graph=tracking)[0]
