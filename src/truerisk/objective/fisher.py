"""Roots of the loss's curvature in the outputs, and targets drawn from the model's prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError


def curvature_roots(
    surrogate: Any, losses: Callable[[Tensor], Tensor], outputs: Tensor, exact: bool
) -> Tensor:
    """Vectors v [k, n, outputs] with ``Σₖ v vᵀ = ∇²l`` in the outputs of each of n samples.

    Pulled back to the parameters they give the Gauss–Newton matrix, which for a loss −log p(y | f)
    of an exponential family is the Fisher matrix (Martens 2020, §9). ``exact`` takes as many as
    there are outputs; otherwise there is one, random, with that expectation: the loss's gradient at
    a target drawn from the model's own prediction:

    | loss                | target                                        | v          |
    |---------------------|-----------------------------------------------|------------|
    | cross-entropy       | class ŷ with probability p = softmax(f)       | p − e_ŷ    |
    | logistic, K outputs | ŷₖ = 1 with probability pₖ = 1/(1 + exp(−fₖ)) | (p − ŷ)/√K |
    | squared, K outputs  | ŷ = f + √(K/2)·ε with ε standard Gaussian     | √(2/K)·ε   |

    (The mean over K outputs is K independent likelihoods with 1/K of the weight each, so there the
    gradients are scaled to have ∇²l as covariance.) For any other loss, ∇²l is found by
    differentiation and its root by an eigendecomposition, without its negative part; the random
    vector combines the root's columns with random signs.

    Args:
        surrogate: the project's surrogate, or any loss.
        losses: per-sample losses [n] as a function of the outputs.
        outputs: f(x; w), [n, outputs], without a graph.
        exact: all of them, or one random.

    Raises:
        ConfigError: a sample has several rows of outputs, as sequences of tokens do.
    """
    if outputs.ndim != 2:
        raise ConfigError(
            f"curvature in the outputs needs them as [n, K], and the model's are "
            f"{tuple(outputs.shape)}: take an optimizer without Fisher factors, such as adam or "
            "gauss_newton"
        )
    loss = getattr(surrogate, "loss", surrogate)
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None:
        return _categorical(outputs.softmax(-1), exact)
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.weight is None and loss.pos_weight is None:
        p = outputs.sigmoid()
        drawn = (p - torch.bernoulli(p)) if not exact else (p * (1 - p)).sqrt()
        return _spread(drawn / outputs.shape[-1] ** 0.5, exact)
    if isinstance(loss, nn.MSELoss):
        unit = torch.ones_like(outputs) if exact else torch.randn_like(outputs)
        return _spread(unit * (2 / outputs.shape[-1]) ** 0.5, exact)
    return _numerical(losses, outputs, exact)


def _categorical(p: Tensor, exact: bool) -> Tensor:
    """Σ p (e − p)(e − p)ᵀ over the classes is diag(p) − ppᵀ."""
    if not exact:
        drawn = torch.multinomial(p, 1)
        return p.scatter_add(-1, drawn, -torch.ones_like(p[..., :1])).unsqueeze(0)
    corners = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
    return (p - corners.unsqueeze(1)) * p.T.unsqueeze(-1).sqrt()


def _spread(v: Tensor, exact: bool) -> Tensor:
    """Outputs that do not interact: one at a time, or all at once where v is random."""
    return torch.diag_embed(v).movedim(-1, 0) if exact else v.unsqueeze(0)


def _numerical(losses: Callable[[Tensor], Tensor], outputs: Tensor, exact: bool) -> Tensor:
    values, vectors = torch.linalg.eigh(loss_hessians(losses, outputs))
    roots = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # [n, outputs, k]
    if exact:
        return roots.movedim(-1, 0)
    signs = torch.randint(0, 2, values.shape, device=values.device).to(values) * 2 - 1
    return (roots * signs.unsqueeze(-2)).sum(-1).unsqueeze(0)


def loss_hessians(losses: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """∇²l in the outputs of each sample, [n, outputs, outputs].

    >>> loss_hessians(lambda f: (f**2).sum(1), torch.zeros(1, 2))
    tensor([[[2., 0.],
             [0., 2.]]])
    """
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(losses(outputs).sum(), outputs, create_graph=True)
    if not slopes.requires_grad:
        return outputs.new_zeros(*outputs.shape, outputs.shape[-1])
    rows = [
        torch.autograd.grad(
            slope.sum(), outputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        for slope in slopes.unbind(-1)
    ]
    return torch.stack(rows, dim=-2)
