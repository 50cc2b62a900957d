"""First derivatives sample by sample: gradients of the losses, Jacobians of the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.core.rng import seed_torch
from truerisk.objective.local_objective import LocalObjective
from truerisk.objective.operators import ENTRIES, check_size, map_columns, pullback


def per_sample_gradients(point: LocalObjective) -> Iterator[Tensor]:
    """Yield ``∇l(w; xᵢ, yᵢ)``, [n, p] for one batch after another, without penalties.

    Row i is the gradient of the i-th loss of its batch, so that the mean over all samples is
    ``∇g(w)``. Where samples do not see each other, they are mapped by ``torch.vmap``. Where they do
    (batch norm while training), where the dropout masks come out differently, or where a layer
    cannot be mapped, the rows are taken one by one from the batch's graph, at the cost of a
    backward pass each: that shows in the mean of the mapped rows, which is compared to the gradient
    of the batch.

    ``point.space.named(rows)`` gives them by parameter, [n, *shape].
    """
    return (rows for _, rows in point.map_batches(lambda batch: _gradient_rows(point, batch)))


def _gradient_rows(point: LocalObjective, batch: Batch) -> Tensor:
    losses, pull = pullback(lambda w: point.losses(w, batch), point.w)
    seed_torch(torch.initial_seed())  # the same noise again
    rows = _map_samples(point, batch)
    if rows is not None and _agrees_with_mean(rows, pull(torch.ones_like(losses)) / len(batch)):
        return rows
    return map_columns(pull, torch.eye(len(batch)).to(losses)).T


def _map_samples(point: LocalObjective, batch: Batch) -> Tensor | None:
    """Map over samples, each as a batch of its own; None where a layer refuses."""
    share = None if batch.share is None or batch.share.ndim == 0 else 0
    weight = None if batch.weight is None else 0
    axes = (0, 0, None if batch.other is None else 0, share, weight)

    def loss(w: Tensor, *one: Any) -> Tensor:
        parts = [t if axis is None else t[None] for t, axis in zip(one, axes, strict=True)]
        return point.losses(w, Batch(*parts)).sum()

    samples = (batch.x, batch.y, batch.other, batch.share, batch.weight)
    try:
        return vmap(grad(loss), (None, *axes), randomness="different")(point.w, *samples)
    except (ConfigError, RuntimeError, ValueError):
        return None


def _agrees_with_mean(rows: Tensor, mean: Tensor) -> bool:
    off = (rows.mean(0) - mean).norm()
    return bool(off <= torch.finfo(rows.dtype).eps ** 0.5 * rows.norm(dim=1).mean())


def jacobian(point: LocalObjective, limit: int = ENTRIES) -> Tensor:
    """Return ``∂f(xᵢ; w)/∂w`` for every sample, [N, outputs, p].

    Args:
        point: w and the samples.
        limit: most numbers that it may hold.

    Raises:
        ConfigError: it would hold more than ``limit`` numbers.
    """
    parts: list[Tensor] = []

    def rows(batch: Batch) -> Tensor:
        outputs, pull = pullback(lambda w: point.outputs(w, batch), point.w)
        held = sum(part.numel() for part in parts)
        check_size("a Jacobian", held + outputs.numel() * point.space.size, limit, point.w.dtype)
        units = torch.eye(outputs.numel(), dtype=outputs.dtype, device=outputs.device)
        found = map_columns(lambda u: pull(u.view_as(outputs)), units)
        return found.T.reshape(*outputs.shape, point.space.size)

    for _, part in point.map_batches(rows):
        parts.append(part)
    return torch.cat(parts)
