"""J of every member at once: the pure objective under ``vmap``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.batch import Batch
from truerisk.objective import Objective
from truerisk.recipe import Recipe
from truerisk.sweeps.vectorized.lifting import Lifting
from truerisk.sweeps.vectorized.masks import Masks
from truerisk.sweeps.vectorized.varied import given, places, stacked

State = Mapping[str, Tensor]


class StackedObjective:
    """The objective of one recipe, at K sets of parameters and K batches.

    ``varied`` are the numbers in it that differ between the members, with their K values.
    """

    def __init__(
        self, recipe: Recipe, varied: Mapping[str, Sequence[float]], masks: Masks, like: Tensor
    ) -> None:
        self.objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        self.plain = Objective(recipe.model, recipe.surrogate)
        self.places = places(recipe)
        self.values = stacked(varied, like)
        self.lifting = Lifting(masks)

    def rows(self, rows: Sequence[int]) -> StackedObjective:
        """The same for some of the members."""
        some = copy.copy(self)
        some.values = {key: values[list(rows)] for key, values in self.values.items()}
        return some

    def __call__(self, state: State, batch: Batch) -> tuple[Tensor, Tensor]:
        """J and the risk, each [K], of a training batch."""

        def one(state: State, values: State, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with given(self.places, values):
                value = self.objective(state, Batch(**parts))
            return value.objective, value.risk

        return self._mapped(one, state, self.values, parts(batch))

    def measured(
        self, state: State, batch: Batch, rows: slice, penalties: bool
    ) -> dict[str, Tensor]:
        """Losses and errors [K, n] of some members, and with ``penalties`` those, each [K]."""
        objective = self.objective if penalties else self.plain
        surrogate = objective.surrogate

        def one(state: State, values: State, parts: dict[str, Tensor]) -> dict[str, Tensor]:
            with given(self.places, values):
                value = objective(state, Batch(**parts))
                errors = surrogate.errors(value.outputs, parts["y"])
            found = {
                "losses": value.losses,
                **{f"penalty/{k}": p for k, p in value.penalties.items()},
            }
            return found if errors is None else {**found, "errors": errors}

        values = {key: value[rows] for key, value in self.values.items()}
        return self._mapped(one, state, values, parts(batch))

    def _mapped(self, function: Any, *args: Any) -> Any:
        with self.lifting:
            return torch.vmap(function, randomness="different")(*args)


def parts(batch: Batch) -> dict[str, Tensor]:
    """A batch as ``vmap`` takes it."""
    found = {"x": batch.x, "y": batch.y, "other": batch.other, "share": batch.share}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
