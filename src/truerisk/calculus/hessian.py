"""The Hessian."""

from __future__ import annotations

from torch.func import grad

from truerisk.calculus.curvature import Curvature
from truerisk.calculus.pullback import Linear, pullback
from truerisk.core.batch import Batch


class Hessian(Curvature):
    """``∇²J(w) = 1/N Σ ∇²l(w; xᵢ, yᵢ) + Σ λ∇²R(w)``, by its products with vectors.

    Reduction: mean over the N samples. A product differentiates the gradient once more, in reverse
    mode (Pearlmutter 1994 does it in forward mode, which not every layer has: the LSTM in float32
    on a CPU does not). It costs about three gradients.

    Where J has kinks (ReLU, max pooling, hinge, L1), it is the Hessian of the smooth piece that w
    lies on.

    >>> import torch
    >>> from truerisk.core.batch import Batch
    >>> from truerisk.calculus.point import Point
    >>> from truerisk.objective import Objective
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> H = Hessian(Point(objective, None, [Batch(torch.eye(2), torch.zeros(2, 1))]))
    >>> H @ torch.tensor([3.0, 4.0])
    tensor([3., 4.])
    """

    def product(self, batch: Batch) -> Linear:
        """The function v ↦ ∇²J_batch v."""
        slope = grad(lambda w: self.point.evaluate(w, batch).objective)
        return pullback(slope, self.point.w)[1]
