"""J on the samples of one optimizer step, as a deterministic function with derivatives.

Its products come from the graph of the step's own forward pass, by ordinary autograd: the pass
that also gives ∇J, moves the running statistics and draws the noise. The operators of
`truerisk.objective.operators` are the same mathematics by ``torch.func``, which makes its own
passes, at any point and over any number of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.core.curvature_oracle import CaptureRequest, CurvatureOracle
from truerisk.core.deterministic import twice_differentiable_kernels
from truerisk.core.flat_vectors import flatten_tensors, split_vector
from truerisk.objective.loss_curvature import LayerTaps, capture_layers
from truerisk.objective.objective import Objective, ObjectiveValue

FirstLook = Callable[[Tensor, Tensor, list[Tensor]], None]
"""Called with J, ∇J [p] and the risk on each micro-batch."""

ROWS = 32
"""Rows of a dense Hessian that are computed at once."""


class StepObjective(CurvatureOracle):
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
        first_look: told J, ∇J and the risk on each micro-batch before anyone else; may refuse to
            go on.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> J = StepObjective(objective, [(Batch(torch.eye(2), torch.zeros(2, 1)), 1.0)])
    >>> J.value(torch.tensor([3.0, 4.0])).item()
    12.5
    >>> J.hessian()
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(
        self,
        objective: Objective,
        micro_batches: Sequence[tuple[Batch, float]],
        mean: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        first_look: FirstLook | None = None,
    ) -> None:
        self.objective, self.micro_batches = objective, micro_batches
        self._mean, self._first_look = mean, first_look
        self.params = list(objective.own.values())
        self._buffers = {n: b.detach().clone() for n, b in self.model.named_buffers()}
        self._noise: list[dict[str, Any]] = []
        self._graph: ForwardGraph | None = None
        self._start: tuple[Tensor, Tensor] | None = None

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.objective.model

    # --- the weights --------------------------------------------------------------------------

    def copy_weights(self) -> Tensor:
        """Return w [p], a copy."""
        return flatten_tensors(self.params).detach()

    @torch.no_grad()
    def set_weights(self, w: Tensor) -> None:
        """Put w [p] into the parameters; that ends the step: derivatives were the old one's."""
        for p, part in zip(self.params, self.split(w), strict=True):
            p.copy_(part)

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cut a vector [p] into tensors in the shapes of the parameters."""
        return split_vector(vector, self.params)

    def average_processes(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        return self._mean(tensor)

    # --- J and its derivatives ----------------------------------------------------------------

    @torch.no_grad()
    def value(self, at: Tensor | None = None) -> Tensor:
        """Return J, a scalar, at the weights ``at`` [p] or where the step begins."""
        start, _ = self._evaluate_start()
        if at is None:
            return start
        params = dict(zip(self.objective.own, self.split(at), strict=True))
        values = [value.objective * share for value, _, share in self._evaluate_again(params)]
        return self._mean(torch.stack(values).sum())

    def gradient(self) -> Tensor:
        """Return ∇J(w), [p]."""
        return self._evaluate_start()[1]

    def hessian_product(self, vector: Tensor) -> Tensor:
        """Return ∇²J(w) v, [p]."""
        return self._sum_batches(lambda graph: graph.hessian_product(vector))

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """Return (J_fᵀ ∇²l J_f + ∇²λR) v, [p]: the penalties keep their own Hessian."""
        return self._sum_batches(lambda graph: graph.gauss_newton_product(vector))

    def penalty_product(self, vector: Tensor) -> Tensor:
        """Return ∇²λR(w) v, [p]."""
        if not self.objective.penalties:
            return torch.zeros_like(vector)
        return self._sum_batches(lambda graph: graph.penalty_product(vector))

    def hessian(self) -> Tensor:
        """Return ∇²J(w), [p, p]."""
        identity = torch.eye(sum(p.numel() for p in self.params)).to(self.params[0])
        # group norm's second derivative has no rule for several directions at once
        one_by_one = any(isinstance(m, nn.GroupNorm) for m in self.model.modules())

        def rows(graph: ForwardGraph) -> Tensor:
            if not one_by_one:
                # a model may call what has no such rule, or fails in it, outside a layer
                with suppress(RuntimeError):
                    return torch.cat([graph.hessian_rows(part) for part in identity.split(ROWS)])
            return torch.stack([graph.hessian_product(e) for e in identity])

        matrix = self._sum_batches(rows)
        # rounding leaves the halves unequal, and eigh and Cholesky read only one of them
        return (matrix + matrix.T) / 2

    def begin_step(self, request: CaptureRequest | None = None) -> None:
        """Run the first forward and backward passes: keep J and ∇J, and leave ∇J in ``.grad``.

        With a request, layers are captured from the same passes.
        """
        layers = request.layers if request else ()
        values, risks, gradient = [], [], torch.zeros_like(self.copy_weights())
        for batch, share in self.micro_batches:
            self._noise.append(rng.get_state())
            taps = LayerTaps(self.model, layers)
            with taps.recording():
                value = self._forward(None, batch)
            self._graph = self._differentiable(value, batch)
            values.append(value.objective.detach() * share)
            risks.append(value.risk.detach())
            gradient.add_(self._graph.gradient(), alpha=share)
            if request:
                request.receive(capture_layers(request, taps, self.objective, value, batch, share))
        # several graphs would take the memory of all micro-batches: products run through them again
        if len(self.micro_batches) > 1:
            self._graph = None
        self._start = self._mean(torch.stack(values).sum()), self._mean(gradient)
        for p, part in zip(self.params, self.split(self._start[1]), strict=True):
            p.grad = part
        if self._first_look is not None:
            self._first_look(*self._start, risks)

    # --- forward passes -----------------------------------------------------------------------

    def _evaluate_start(self) -> tuple[Tensor, Tensor]:
        """Return J and ∇J where the step begins."""
        if self._start is None:
            with torch.enable_grad():
                self.begin_step()
        assert self._start is not None
        return self._start

    def _forward(self, params: dict[str, Tensor] | None, batch: Batch) -> ObjectiveValue:
        with twice_differentiable_kernels(self.model):
            return self.objective(params, batch)

    def _differentiable(self, value: ObjectiveValue, batch: Batch) -> ForwardGraph:
        objective = self.objective  # not self: a cycle would keep the graph alive after the step
        return ForwardGraph(value, lambda out: objective.losses(out, batch).mean(), self.params)

    def _evaluate_again(
        self, params: dict[str, Tensor]
    ) -> Iterator[tuple[ObjectiveValue, Batch, float]]:
        """Evaluate J at any weights: with the same noise, and buffers as they were at first."""
        # copies, as a layer may write into the buffers that it is given
        params = params | {name: b.clone() for name, b in self._buffers.items()}
        with rng.fork_state():
            for noise, (batch, share) in zip(self._noise, self.micro_batches, strict=True):
                rng.set_state(noise)
                yield self._forward(params, batch), batch, share

    @torch.enable_grad()
    def _sum_batches(self, product: Callable[[ForwardGraph], Tensor]) -> Tensor:
        """Add up what ``product`` returns for each micro-batch, by their shares."""
        self._evaluate_start()
        if self._graph is not None:
            return self._mean(product(self._graph) * self.micro_batches[0][1])
        again = self._evaluate_again(dict(self.objective.own))
        parts = (
            product(self._differentiable(value, batch)) * share for value, batch, share in again
        )
        total = next(parts)
        for part in parts:
            total += part
        return self._mean(total)


class ForwardGraph:
    """J on one batch, with what its forward pass left behind for differentiating it.

    All products are in reverse mode, which every layer supports (in forward mode the LSTM of the
    CPU does not), and share one forward pass. Vectors are flat, in the order of ``params``.

    Args:
        value: J on the batch, with its graph.
        risk: the mean loss as a function of the outputs [n, K].
        params: the parameters, with which vectors [p] are in order.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> batch = Batch(torch.eye(2), torch.zeros(2, 1))
    >>> risk = lambda out: objective.losses(out, batch).mean()
    >>> graph = ForwardGraph(objective(None, batch), risk, [model.weight])
    >>> graph.hessian_product(torch.tensor([3.0, 4.0]))
    tensor([3., 4.])
    """

    def __init__(
        self, value: ObjectiveValue, risk: Callable[[Tensor], Tensor], params: Sequence[Tensor]
    ) -> None:
        self.value, self.risk, self.params = value, risk, list(params)

    def gradient(self) -> Tensor:
        """Return ∇J, [p]."""
        return self._pull_back(self.value.objective)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """Return ∇²J v = ∇(∇Jᵀv), [p]."""
        return _vjp(self._slope, self.params, vector)

    def hessian_rows(self, vectors: Tensor) -> Tensor:
        """Return ∇²J V for the rows of V [k, p], all at once."""
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
        # not `materialize_grads`: its zeros would have no leading dimension
        zeros = (vectors.new_zeros(len(vectors), p.numel()) for p in self.params)
        return torch.cat(
            [z if q is None else q.reshape_as(z) for q, z in zip(parts, zeros, strict=True)], dim=1
        )

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """Return (J_fᵀ ∇²l J_f + ∇²λR) v, [p]: the penalties keep their own Hessian."""
        return self.loss_product(vector) + self.penalty_product(vector)

    def loss_product(self, vector: Tensor) -> Tensor:
        """Return J_fᵀ ∇²l J_f v, [p]."""
        outputs, slope = self._outputs
        # v → J_f v: the pullback u ↦ J_fᵀu is linear, so the derivative of (J_fᵀu)ᵀv in u is J_f v
        # at any u: forward mode by reverse mode twice (Townsend 2017)
        tangent = _vjp(self._pulled, [self._seed], vector)
        # J_f v → ∇²l J_f v
        curved = _vjp(slope, [outputs], tangent).view_as(outputs)
        # ∇²l J_f v → J_fᵀ ∇²l J_f v
        return self._pull_back(self.value.outputs, curved)

    def penalty_product(self, vector: Tensor) -> Tensor:
        """Return ∇²λR v, [p]."""
        return _vjp(self._penalty_slope, self.params, vector)

    @cached_property
    def _slope(self) -> Tensor:
        return self._pull_back(self.value.objective, create_graph=True)

    @cached_property
    def _penalty_slope(self) -> Tensor:
        total = sum(self.value.penalties.values(), torch.zeros_like(self.value.risk))
        return self._pull_back(total, create_graph=True)

    @cached_property
    def _outputs(self) -> tuple[Tensor, Tensor]:
        """The outputs, cut off from the model, and the loss's gradient there."""
        outputs = self.value.outputs.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.risk(outputs), outputs, create_graph=True)
        return outputs, slope.flatten()

    @cached_property
    def _seed(self) -> Tensor:
        """The u of J_fᵀu; its value does not matter."""
        return torch.zeros_like(self.value.outputs, requires_grad=True)

    @cached_property
    def _pulled(self) -> Tensor:
        return self._pull_back(self.value.outputs, self._seed, create_graph=True)

    def _pull_back(
        self, of: Tensor, seed: Tensor | None = None, create_graph: bool = False
    ) -> Tensor:
        """Return (∂of/∂w)ᵀ seed, [p]."""
        return _vjp(of, self.params, seed, create_graph)


def _vjp(
    of: Tensor, wrt: Sequence[Tensor], vector: Tensor | None, create_graph: bool = False
) -> Tensor:
    """Return (∂of/∂wrt)ᵀ vector as one vector, and keep the graph for the next one."""
    # what does not depend on them at all, as the gradient of a piecewise linear J, has no graph
    if not of.requires_grad:
        return flatten_tensors([torch.zeros_like(t) for t in wrt])
    parts = torch.autograd.grad(
        of,
        wrt,
        vector,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return flatten_tensors(parts)
