"""What a forward pass shows of the layers whose curvature is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from truerisk.core.batch import Batch
from truerisk.objective.fisher import curvature_roots
from truerisk.objective.objective import Objective, Value
from truerisk.objective.taps import Taps


class Capture(NamedTuple):
    """One micro-batch of ``samples`` samples, with its ``share`` of the step.

    For every call of a layer: its input, and the derivatives [k, *output shape] of ``Σᵢ vᵢᵀ f(xᵢ)``
    with respect to its output, for each of the k vectors v of ``fisher.curvature_roots``. The
    ``gradients`` of the other parameters asked about are those of one random v: the expectation of
    their square is the Gauss–Newton matrix's diagonal, summed over the samples, as the vᵢ of
    different samples are independent and have mean zero.
    """

    share: float
    samples: int
    inputs: dict[nn.Module, list[Tensor]]
    slopes: dict[nn.Module, list[Tensor]]
    gradients: list[Tensor]


class Watch(NamedTuple):
    """The layers and other parameters to capture, by exact roots or random ones; who is told."""

    layers: Sequence[nn.Module]
    params: Sequence[Tensor]
    exact: bool
    tell: Callable[[Capture], None]


def capture(
    watch: Watch, taps: Taps, objective: Objective, value: Value, batch: Batch, share: float
) -> Capture:
    """Pull the roots of the loss's curvature back to what is watched."""
    outputs = value.outputs

    def losses(at: Tensor) -> Tensor:
        return objective.losses(at, batch)

    def pulled(to: Sequence[Tensor], exact: bool) -> list[tuple[Tensor, ...]]:
        roots = curvature_roots(objective.surrogate, losses, outputs.detach(), exact) if to else ()
        return [_gradients(outputs, to, v) for v in roots]

    called = [output for layer in watch.layers for output in taps.outputs[layer]]
    slopes = iter([torch.stack(parts) for parts in zip(*pulled(called, watch.exact), strict=True)])
    by_layer = {layer: [next(slopes) for _ in taps.outputs[layer]] for layer in watch.layers}
    others = [part for parts in pulled(watch.params, False) for part in parts]
    return Capture(share, len(batch), taps.inputs, by_layer, others)


def _gradients(of: Tensor, to: Iterable[Tensor], seed: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        of, list(to), seed, retain_graph=True, allow_unused=True, materialize_grads=True
    )
