"""J of every member at once: the pure objective under ``vmap``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.engine.stacked.substitution import find_numbers, stack_numbers, substituted
from truerisk.engine.stacked.vmap.batching_rules import BatchingRules
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.traced_function import Function, TracedFunction
from truerisk.objective import Objective
from truerisk.recipe import Recipe

State = Mapping[str, Tensor]
Names = tuple[tuple[str, ...], ...]


class StackedObjective:
    """The objective of one recipe, at K sets of parameters and K batches.

    ``varied`` are the numbers in it that differ between the members, with their K values.
    """

    def __init__(
        self,
        recipe: Recipe,
        varied: Mapping[str, Sequence[float]],
        masks: DropoutStreams,
        like: Tensor,
    ) -> None:
        self.objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        self.slots = find_numbers(recipe)
        self.values = stack_numbers(varied, like)
        self.masks, self.lifting = masks, BatchingRules(masks)
        self._gradient: dict[Any, TracedFunction] = {}
        self._measured: dict[Any, TracedFunction] = {}

    def select_rows(self, rows: Sequence[int]) -> StackedObjective:
        """The same for some of the members."""
        some = copy.copy(self)
        some.values = {key: values[list(rows)] for key, values in self.values.items()}
        return some

    def gradient(
        self, params: State, buffers: State, batch: Batch, share: float = 1.0
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J times ``share`` and the risk, each [K], and ∇J by parameter, [K, …]."""
        named = [params, buffers, self.values, parts(batch)]
        names = tuple(tuple(group) for group in named)
        key = share, names
        if key not in self._gradient:
            self._gradient[key] = TracedFunction(self._gradient_of(names, share))
        tensors = [tensor for group in named for tensor in group.values()]
        value, risk, *found = self._gradient[key]([*tensors, *self.masks.draw_ahead(batch.x.shape)])
        return value, risk, found

    def _gradient_of(self, names: Names, share: float) -> Function:
        def one(state: State, values: State, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with substituted(self.slots, values):
                value = self.objective(state, Batch(**parts))
            return value.objective, value.risk

        def gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            params, buffers, values, own = _named(names, rest)
            with self.masks.replayed(list(rest), own["x"].shape):
                value, risk = self._mapped(one, params | buffers, values, own)
            value = value if share == 1 else value * share
            found = torch.autograd.grad(value.sum(), list(params.values()))
            return value.detach(), risk.detach(), *found

        return gradient

    def measure(self, state: State, batch: Batch, rows: slice) -> dict[str, Tensor]:
        """Losses and errors [K, n] of some members, and their penalties, each [K]."""
        values = {key: value[rows] for key, value in self.values.items()}
        named = [state, values, parts(batch)]
        names = tuple(tuple(group) for group in named)
        if names not in self._measured:
            self._measured[names] = TracedFunction(self._measured_of(names))
        tensors = [tensor for group in named for tensor in group.values()]
        found = self._measured[names](tensors)
        return dict(zip(self._measures, found, strict=True))

    @property
    def _measures(self) -> list[str]:
        has_errors = self.objective.surrogate.task.error_title is not None
        errors = ["errors"] if has_errors else []
        return ["losses", *errors, *(f"penalty/{name}" for name in self.objective.penalties)]

    def _measured_of(self, names: Names) -> Function:
        surrogate = self.objective.surrogate

        def one(state: State, values: State, own: dict[str, Tensor]) -> tuple[Tensor, ...]:
            with substituted(self.slots, values):
                value = self.objective(state, Batch(**own))
                errors = surrogate.compute_errors(value.outputs, own["y"])
            wrong = () if errors is None else (errors,)
            return value.losses, *wrong, *value.penalties.values()

        def measured(*tensors: Tensor) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = self._mapped(one, *_named(names, iter(tensors)))
            return found

        return measured

    def _mapped(self, function: Any, *args: Any) -> Any:
        with self.lifting:
            return torch.vmap(function, randomness="different")(*args)


def _named(names: Names, tensors: Iterator[Tensor]) -> list[dict[str, Tensor]]:
    """Tensors as they come, by the names they go by."""
    return [{name: next(tensors) for name in group} for group in names]


def parts(batch: Batch) -> dict[str, Tensor]:
    """A batch as ``vmap`` takes it."""
    found = {"x": batch.x, "y": batch.y, "other": batch.other, "share": batch.share}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
