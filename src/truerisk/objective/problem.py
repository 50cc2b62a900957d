"""J on the samples of one optimizer step, as a deterministic function with derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.objective.capture import Watch, capture
from truerisk.objective.graph import Graph
from truerisk.objective.objective import Objective, Value
from truerisk.objective.taps import Taps

Seen = Callable[[Tensor, Tensor, list[Tensor]], None]

ROWS = 32
"""Rows of a dense Hessian that are computed at once."""


class Problem:
    """J on one step's micro-batches, for optimizers that ask for more than its gradient.

    A deterministic function of the weights w, a flat vector in the order of ``params``: noise such
    as a dropout mask is the same at every evaluation, and batch norm normalises by the batch, while
    its running statistics move only once. Derivatives are those at the weights where the step
    begins. With one micro-batch they share one forward pass; with several, each product runs
    through them one after another, in the memory of one. Everything is averaged over all processes.

    Args:
        objective: J.
        micro_batches: the step's batches, with the share each has in it.
        mean: the mean of a tensor over all processes.
        seen: told J, ∇J and the risk on each micro-batch before anyone else; may refuse to go on.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> problem = Problem(objective, [(Batch(torch.eye(2), torch.zeros(2, 1)), 1.0)])
    >>> problem.value(torch.tensor([3.0, 4.0])).item()
    12.5
    >>> problem.hessian()
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(
        self,
        objective: Objective,
        micro_batches: Sequence[tuple[Batch, float]],
        mean: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        seen: Seen | None = None,
    ) -> None:
        self.objective, self.micro_batches = objective, micro_batches
        self.mean, self.seen = mean, seen
        self.params = list(objective.own.values())
        self._buffers = {n: b.detach().clone() for n, b in self.model.named_buffers()}
        self._noise: list[dict[str, Any]] = []
        self._kept: Graph | None = None
        self._start: tuple[Tensor, Tensor] | None = None

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.objective.model

    # --- the weights --------------------------------------------------------------------------

    def point(self) -> Tensor:
        """The weights, flat; a copy."""
        return flat(self.params).detach()

    @torch.no_grad()
    def move(self, to: Tensor) -> None:
        """Set the weights; that ends the step, as derivatives were those of the old ones."""
        for p, part in zip(self.params, self.split(to), strict=True):
            p.copy_(part)

    def split(self, vector: Tensor) -> list[Tensor]:
        """A flat vector as tensors in the shapes of the parameters."""
        parts = vector.split([p.numel() for p in self.params])
        return [part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    # --- J and its derivatives ----------------------------------------------------------------

    @torch.no_grad()
    def value(self, at: Tensor | None = None) -> Tensor:
        """J, at the weights ``at`` or where the step begins."""
        start, _ = self._begun()
        if at is None:
            return start
        params = dict(zip(self.objective.own, self.split(at), strict=True))
        values = [value.objective * share for value, _, share in self._again(params)]
        return self.mean(torch.stack(values).sum())

    def gradient(self) -> Tensor:
        """∇J."""
        return self._begun()[1]

    def hvp(self, vector: Tensor) -> Tensor:
        """∇²J v."""
        return self._sum(lambda graph: graph.hessian_product(vector))

    def ggnvp(self, vector: Tensor) -> Tensor:
        """Gauss–Newton product (J_fᵀ ∇²l J_f + ∇²λR) v: the penalties keep their own Hessian."""
        return self._sum(lambda graph: graph.gauss_newton_product(vector))

    def penalty_product(self, vector: Tensor) -> Tensor:
        """∇²λR v."""
        if not self.objective.penalties:
            return torch.zeros_like(vector)
        return self._sum(lambda graph: graph.penalty_product(vector))

    def hessian(self) -> Tensor:
        """∇²J, [parameters, parameters]."""
        identity = torch.eye(sum(p.numel() for p in self.params)).to(self.params[0])
        # group norm's second derivative has no rule for several directions at once
        single = any(isinstance(m, nn.GroupNorm) for m in self.model.modules())

        def rows(graph: Graph) -> Tensor:
            if single:
                return torch.stack([graph.hessian_product(e) for e in identity])
            return torch.cat([graph.hessian_rows(part) for part in identity.split(ROWS)])

        matrix = self._sum(rows)
        return (matrix + matrix.T) / 2

    def begin(self, watch: Watch | None = None) -> None:
        """Look at J and ∇J, before all else; watching layers costs no second forward pass."""
        values, risks, gradient = [], [], torch.zeros_like(self.point())
        for batch, share in self.micro_batches:
            self._noise.append(rng.get_state())
            with Taps(self.model, watch.layers if watch else ()) as taps:
                value = self._forward(None, batch)
            self._kept = self._graph(value, batch)
            values.append(value.objective.detach() * share)
            risks.append(value.risk.detach())
            gradient.add_(self._kept.gradient(), alpha=share)
            if watch:
                watch.tell(capture(watch, taps, self.objective, value, batch, share))
        if len(self.micro_batches) > 1:
            self._kept = None
        self._start = self.mean(torch.stack(values).sum()), self.mean(gradient)
        for p, part in zip(self.params, self.split(self._start[1]), strict=True):
            p.grad = part
        if self.seen is not None:
            self.seen(*self._start, risks)

    # --- how ----------------------------------------------------------------------------------

    def _begun(self) -> tuple[Tensor, Tensor]:
        if self._start is None:
            with torch.enable_grad():
                self.begin()
        assert self._start is not None
        return self._start

    def _forward(self, params: dict[str, Tensor] | None, batch: Batch) -> Value:
        with ExitStack() as stack:
            # fused attention and cuDNN's recurrent layers cannot be differentiated twice
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(m, nn.RNNBase) for m in self.model.modules()):
                stack.enter_context(cudnn.flags(enabled=False))
            return self.objective(params, batch)

    def _graph(self, value: Value, batch: Batch) -> Graph:
        objective = self.objective  # not self: a cycle would keep the graph alive after the step
        return Graph(value, lambda out: objective.losses(out, batch).mean(), self.params)

    def _again(self, params: dict[str, Tensor]) -> Iterator[tuple[Value, Batch, float]]:
        """Look again, at any weights: with the same noise, and buffers as they were at first."""
        params = params | {name: b.clone() for name, b in self._buffers.items()}
        with rng.fork_state():
            for noise, (batch, share) in zip(self._noise, self.micro_batches, strict=True):
                rng.set_state(noise)
                yield self._forward(params, batch), batch, share

    @torch.enable_grad()
    def _sum(self, product: Callable[[Graph], Tensor]) -> Tensor:
        self._begun()
        if self._kept is not None:
            return self.mean(product(self._kept) * self.micro_batches[0][1])
        looks = self._again(dict(self.objective.own))
        parts = (product(self._graph(value, batch)) * share for value, batch, share in looks)
        total = next(parts)
        for part in parts:
            total += part
        return self.mean(total)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All entries in one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])
