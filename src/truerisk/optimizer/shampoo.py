"""Shampoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.optimizer.needs import Needs, refuse_shards

GROWTH = 10
"""Roots are renewed at least whenever the sums have grown by one part in so many."""


class Shampoo(Optimizer):
    """Shampoo: one preconditioner for each dimension of a parameter.

    For a matrix W with gradient G, and M the running mean of gradients,

        L ← L + G Gᵀ,   R ← R + Gᵀ G,   M ← μ M + (1 − μ) G
        W ← W − lr · L^(−1/4) M R^(−1/4)

    from L = εI, R = εI. A parameter with k dimensions has k such matrices, with the power −1/(2k):
    a vector has full-matrix AdaGrad. A dimension above ``max_size`` is left as it is. As the sums
    grow, steps shrink like 1/√t.

    Source: Gupta, Koren & Singer 2018, "Shampoo: Preconditioned Stochastic Tensor Optimization",
    algorithms 1 and 2. Ours because pytorch_optimizer 4.1 feeds its preconditioned step back into
    the next gradient where momentum > 0, and where inverse roots are not computed in every step, it
    takes no step at all before the first of them.

    Args:
        params: parameters or parameter groups.
        lr: step length.
        momentum: μ.
        weight_decay: decoupled weight decay λ, w ← (1 − lr·λ)w besides the step.
        eps: ε, what the preconditioners start from.
        every: most steps between computations of the inverse roots. Fewer at first: roots of a few
            gradients multiply whatever is new in the next one by up to ε^(−1/2).
        max_size: largest dimension that gets a preconditioner.

    >>> w = torch.zeros(2, 2, requires_grad=True)
    >>> optimizer = Shampoo([w], lr=1.0, eps=0.0)
    >>> w.grad = torch.diag(torch.tensor([4.0, 9.0]))
    >>> optimizer.step()
    >>> w.detach().round(decimals=4)  # G = U S Vᵀ gives the step U Vᵀ
    tensor([[-1.,  0.],
            [ 0., -1.]])
    """

    needs = Needs()

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-4,
        every: int = 1,
        max_size: int = 1024,
    ) -> None:
        check_float("optimizer.momentum", momentum, 0, 1)
        check_float("optimizer.eps", eps)
        check_int("optimizer.every", every)
        numbers: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, numbers | {"eps": eps, "every": every, "max_size": max_size})
        refuse_shards("Shampoo", (p for group in self.param_groups for p in group["params"]))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step; returns what the closure returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update_parameter(p, p.grad, group)
        return loss

    def _update_parameter(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        # a scalar counts as a vector of one, so that it has a preconditioner
        state, grad = self.state[p], grad.reshape(p.shape or (1,))
        if not state:
            state["step"], state["due"], state["mean"] = 0, 0, torch.zeros_like(grad)
            state["sums"] = [initial_sum(grad, d, group) for d in range(grad.ndim)]
        for d, total in enumerate(state["sums"]):
            if total is not None:
                total += sum_outer_products(grad, d)
        if state["step"] >= state["due"]:
            state["roots"] = [inverse_root(total, 2 * grad.ndim) for total in state["sums"]]
            # sooner at first, when every gradient changes the sums a lot
            state["due"] += min(group["every"], 1 + state["step"] // GROWTH)
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - group["momentum"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(precondition_step(state["mean"], state["roots"]).view_as(p), alpha=group["lr"])


def initial_sum(grad: Tensor, d: int, group: dict[str, Any]) -> Tensor | None:
    """Return εI for dimension d, None where that is too large.

    Args:
        grad: the gradient.
        d: the dimension.
        group: the parameter group.
    """
    size = grad.shape[d]
    if size > group["max_size"]:
        return None
    return group["eps"] * torch.eye(size, dtype=grad.dtype, device=grad.device)


def sum_outer_products(grad: Tensor, d: int) -> Tensor:
    """Return Σ g gᵀ over the slices g of a gradient along dimension d.

    Args:
        grad: the gradient.
        d: the dimension.

    >>> sum_outer_products(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 0)
    tensor([[5., 2.],
            [2., 1.]])
    """
    slices = grad.movedim(d, 0).flatten(1) if grad.ndim > 1 else grad[:, None]
    return slices @ slices.T


def inverse_root(total: Tensor | None, power: int) -> Tensor | None:
    """Return A^(−1/power) of a symmetric matrix; zeros but for rounding count as that rounding.

    Args:
        total: A; None for a dimension that is left as it is.
        power: of the root.

    >>> inverse_root(torch.diag(torch.tensor([16.0, 81.0])), 4).diag().reciprocal()
    tensor([2., 3.])
    """
    if total is None:
        return None
    values, vectors = torch.linalg.eigh(total)
    # eigenvalues of rounding may be negative, and a root of them nan
    least = values[-1] * len(values) * torch.finfo(values.dtype).eps
    roots = values.clamp(min=least) ** (-1 / power)
    return (vectors * roots) @ vectors.mT


def precondition_step(step: Tensor, roots: list[Tensor | None]) -> Tensor:
    """Multiply a tensor by a matrix along each dimension that has one.

    Args:
        step: the tensor.
        roots: a matrix for each dimension, or None.
    """
    for d, root in enumerate(roots):
        if root is not None:
            step = torch.tensordot(root, step, dims=([1], [d])).movedim(0, d)
    return step
