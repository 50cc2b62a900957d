"""The numbers of an objective that may differ between the members of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truerisk.recipe import Recipe
from truerisk.regularizer.dropout import DROPOUTS

PENALTIES = ("coefficient", "l1_ratio")
LOSSES = ("label_smoothing", "margin")


class NumberSlot(NamedTuple):
    """Where a number of a recipe stands: an attribute of one of its objects."""

    owner: Any
    attribute: str


def find_numbers(recipe: Recipe) -> dict[str, NumberSlot]:
    """The numbers that J reads as it is evaluated, by a name of their own."""
    found = {f"loss.{name}": NumberSlot(recipe.surrogate.loss, name) for name in LOSSES}
    for key, regularizer in recipe.regularizers.items():
        found |= {f"{key}.{name}": NumberSlot(regularizer, name) for name in PENALTIES}
    for name, module in recipe.model.named_modules():
        if isinstance(module, DROPOUTS):
            found[f"model.{name}.p"] = NumberSlot(module, "p")
    return {key: place for key, place in found.items() if _is_number(place)}


def _is_number(place: NumberSlot) -> bool:
    value = getattr(place.owner, place.attribute, None)
    return isinstance(value, int | float) and not isinstance(value, bool)


def differing_numbers(recipes: Sequence[Recipe]) -> dict[str, list[float]]:
    """Each number that is not the same for all the recipes, with its values."""
    read = [find_numbers(recipe) for recipe in recipes]
    values = {key: [float(getattr(*own[key])) for own in read] for key in read[0]}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


@contextmanager
def substituted(where: Mapping[str, NumberSlot], values: Mapping[str, Tensor]) -> Iterator[None]:
    """The numbers stand at ``values`` inside the block, and as they were after it."""
    before = {key: getattr(*where[key]) for key in values}
    try:
        for key, value in values.items():
            _set(where[key], value)
        yield
    finally:
        for key, number in before.items():
            _set(where[key], number)


def _set(place: NumberSlot, value: Any) -> None:
    # past nn.Module's own, which would take a tensor for one of its buffers
    if isinstance(place.owner, nn.Module):
        place.owner.__dict__[place.attribute] = value
    else:
        setattr(place.owner, place.attribute, value)


def stack_numbers(values: Mapping[str, Sequence[float]], like: Tensor) -> dict[str, Tensor]:
    """The values as tensors [K] of the type and device of ``like``."""
    return {
        k: torch.tensor(row, dtype=torch.float64).to(like.device, like.dtype)
        for k, row in values.items()
    }
