"""J(w) = g(w) + Σ λR(w), as a pure function of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from truerisk.core.batch import Batch, Forward
from truerisk.core.deterministic import still_statistics

Penalty = Callable[[Forward], Tensor]


class ObjectiveValue(NamedTuple):
    """One evaluation: J, g and the losses [n] behind it, and the penalties by name."""

    objective: Tensor
    risk: Tensor
    losses: Tensor
    outputs: Tensor
    penalties: dict[str, Tensor]


class Objective:
    """The structural risk of a model on a batch.

    ``J(w) = 1/n Σ l(f(xᵢ; w), yᵢ) + Σ λₖ Rₖ(w)``

    ``objective(params, batch)`` evaluates it at any ``params`` (names to tensors; buffers may be
    among them) by ``torch.func.functional_call``, so it can be differentiated and mapped by
    ``torch.func``. With ``params=None`` it is evaluated at the model's own parameters, which is the
    same function without the cost of substituting them.

    Args:
        model: the model.
        surrogate: per-sample losses [n] of outputs and targets.
        penalties: λR by name, each of a `Forward`.
        forward: what to call in the model's place at its own parameters, as a wrapper that averages
            gradients over processes.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> square = lambda out, y: ((out - y) ** 2).mean(1)
    >>> J = Objective(model, square, {"l2": lambda f: 0.5 * f.params["weight"].square().sum()})
    >>> batch = Batch(torch.ones(2, 1), torch.zeros(2, 1))
    >>> float(J({"weight": torch.tensor([[2.0]])}, batch).objective)
    6.0
    """

    def __init__(
        self,
        model: nn.Module,
        surrogate: Callable[[Tensor, Tensor], Tensor],
        penalties: Mapping[str, Penalty] | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.forward = model, forward or model
        self.surrogate: Any = surrogate
        self.penalties = dict(penalties or {})
        self.own = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def outputs(self, params: Mapping[str, Tensor] | None, x: Tensor) -> Tensor:
        """Return f(x; w), [n, outputs].

        Args:
            params: w, by name; None for the model's own.
            x: inputs [n, *input_shape].
        """
        if params is None:
            return self.forward(x)
        return functional_call(self.model, dict(params), (x,))

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the surrogate loss of each sample, [n]; a mixed batch mixes its two losses.

        Args:
            outputs: f(x; w), [n, outputs].
            batch: n samples.
        """
        losses: Tensor = self.surrogate(outputs, batch.y)
        if batch.other is not None and batch.share is not None:
            other = self.surrogate(outputs, batch.other)
            losses = batch.share * losses + (1 - batch.share) * other
        return losses if batch.weight is None else losses * batch.weight

    def trainable(self, params: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the parameters that penalties act on, by name."""
        if params is None:
            return dict(self.own)
        return {name: p for name, p in params.items() if name in self.own}

    def __call__(self, params: Mapping[str, Tensor] | None, batch: Batch) -> ObjectiveValue:
        """Evaluate J on a batch."""
        outputs = self.outputs(params, batch.x)
        losses = self.losses(outputs, batch)
        risk = losses.mean()
        if not self.penalties:
            return ObjectiveValue(risk, risk, losses, outputs, {})
        penalties = self._penalties(params, batch, outputs)
        return ObjectiveValue(risk + sum(penalties.values()), risk, losses, outputs, penalties)

    def _penalties(
        self, params: Mapping[str, Tensor] | None, batch: Batch, outputs: Tensor
    ) -> dict[str, Tensor]:
        def losses_at(x: Tensor) -> Tensor:
            with still_statistics(self.model):
                return self.losses(self.outputs(params, x), batch)

        forward = Forward(self.trainable(params), batch, outputs, losses_at)
        return {name: penalty(forward) for name, penalty in self.penalties.items()}


def gradient_by_name(
    objective: Objective, params: Mapping[str, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """Return ∇J at ``params``, by name: a transformation of the pure function, for checks.

    Args:
        objective: J.
        params: w, by name.
        batch: the samples.
    """
    return torch.func.grad(lambda p: objective(p, batch).objective)(dict(params))
