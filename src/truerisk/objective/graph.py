"""Products with the second derivatives of J, from the graph of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from truerisk.objective.objective import Value


class Graph:
    """J on one batch, with what its forward pass left behind for differentiating it.

    All products are in reverse mode, which every layer supports (in forward mode the LSTM of the
    CPU does not), and share one forward pass: the gradient is differentiated again for
    ``∇²J v = ∇(∇Jᵀv)``, and ``J_f v = ∇_u (J_fᵀu)ᵀv`` for any u, as J_fᵀu is linear in it
    (Townsend 2017). Vectors are flat, in the order of ``params``.

    >>> from truerisk.core.batch import Batch
    >>> from truerisk.objective.objective import Objective
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> batch = Batch(torch.eye(2), torch.zeros(2, 1))
    >>> risk = lambda out: objective.losses(out, batch).mean()
    >>> graph = Graph(objective(None, batch), risk, [model.weight])
    >>> graph.hessian_product(torch.tensor([3.0, 4.0]))
    tensor([3., 4.])
    """

    def __init__(
        self, value: Value, risk: Callable[[Tensor], Tensor], params: Sequence[Tensor]
    ) -> None:
        self.value, self.risk, self.params = value, risk, list(params)

    def gradient(self) -> Tensor:
        """∇J."""
        return self._gradient(self.value.objective)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """∇²J v."""
        return self._product(self._slope, self.params, vector)

    def hessian_rows(self, vectors: Tensor) -> Tensor:
        """∇²J V for the rows of V [k, parameters], all at once."""
        if not self._slope.requires_grad:
            return torch.zeros_like(vectors)
        parts = torch.autograd.grad(
            self._slope,
            self.params,
            vectors,
            retain_graph=True,
            is_grads_batched=True,
            allow_unused=True,
        )
        zeros = (vectors.new_zeros(len(vectors), p.numel()) for p in self.params)
        return torch.cat(
            [z if q is None else q.reshape_as(z) for q, z in zip(parts, zeros, strict=True)], dim=1
        )

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """(J_fᵀ ∇²l J_f + ∇²λR) v: the loss's curvature in the outputs, the penalties' whole."""
        return self.loss_product(vector) + self.penalty_product(vector)

    def loss_product(self, vector: Tensor) -> Tensor:
        """J_fᵀ ∇²l J_f v."""
        outputs, slope = self._outputs
        tangent = self._product(self._pulled, [self._seed], vector)
        curved = self._product(slope, [outputs], tangent).view_as(outputs)
        return self._gradient(self.value.outputs, curved)

    def penalty_product(self, vector: Tensor) -> Tensor:
        """∇²λR v."""
        return self._product(self._penalty_slope, self.params, vector)

    @cached_property
    def _slope(self) -> Tensor:
        return self._gradient(self.value.objective, create_graph=True)

    @cached_property
    def _penalty_slope(self) -> Tensor:
        total = sum(self.value.penalties.values(), torch.zeros_like(self.value.risk))
        return self._gradient(total, create_graph=True)

    @cached_property
    def _outputs(self) -> tuple[Tensor, Tensor]:
        """The outputs, cut off from the model, and the loss's gradient there."""
        outputs = self.value.outputs.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.risk(outputs), outputs, create_graph=True)
        return outputs, slope.flatten()

    @cached_property
    def _seed(self) -> Tensor:
        return torch.zeros_like(self.value.outputs, requires_grad=True)

    @cached_property
    def _pulled(self) -> Tensor:
        return self._gradient(self.value.outputs, self._seed, create_graph=True)

    def _gradient(
        self, of: Tensor, seed: Tensor | None = None, create_graph: bool = False
    ) -> Tensor:
        if not of.requires_grad:
            return torch.cat([torch.zeros_like(p).flatten() for p in self.params])
        parts = torch.autograd.grad(
            of,
            self.params,
            seed,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([part.reshape(-1) for part in parts])

    @staticmethod
    def _product(of: Tensor, wrt: Sequence[Tensor], vector: Tensor) -> Tensor:
        if not of.requires_grad:
            return torch.cat([torch.zeros_like(t).flatten() for t in wrt])
        parts = torch.autograd.grad(
            of, wrt, vector, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in parts])
