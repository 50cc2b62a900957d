"""The generalized Gauss–Newton matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad

from truerisk.calculus.curvature import Curvature
from truerisk.calculus.point import Point
from truerisk.calculus.pullback import Linear, pullback
from truerisk.core.batch import Batch


class GaussNewton(Curvature):
    """``G(w) = 1/N Σ Jᵢᵀ Hᵢ Jᵢ + Σ λ∇²R(w)``, by its products with vectors (Schraudolph 2002).

    ``Jᵢ = ∂f(xᵢ; w)/∂w`` [outputs, p] and ``Hᵢ = ∇²l`` with respect to the outputs of sample i.
    Reduction: mean over the N samples. It is the Hessian of J with the model replaced by its
    linearization at w, and positive semidefinite where the loss is convex in the outputs and the
    penalties are convex; those keep their own Hessian. For cross-entropy it is the Fisher matrix.

    ``Jᵢ v`` is taken as the derivative of the linear function ``u ↦ Jᵢᵀu``, in reverse mode, which
    every layer has (Townsend 2017).

    Args:
        point: w and the samples.
        penalties: whether the second term is in it.
    """

    def __init__(self, point: Point, penalties: bool = True) -> None:
        super().__init__(point)
        self.penalties = penalties and bool(point.objective.penalties)

    def product(self, batch: Batch) -> Linear:
        """The function v ↦ G_batch v."""
        point = self.point
        outputs, pull = pullback(lambda w: point.outputs(w, batch), point.w)
        _, push = pullback(pull, torch.zeros_like(outputs))
        _, bend = pullback(grad(lambda o: point.objective.losses(o, batch).mean()), outputs)
        penalty = self._penalty(batch)
        return lambda v: pull(bend(push(v))) + penalty(v)

    def _penalty(self, batch: Batch) -> Linear:
        if not self.penalties:
            return torch.zeros_like

        def total(w: Tensor) -> Tensor:
            return torch.stack([*self.point.evaluate(w, batch).penalties.values()]).sum()

        return pullback(grad(total), self.point.w)[1]
