"""The numbers of an objective that may differ between the members of a stack.

Every member is evaluated by the objects of member 0. A number stands at its own value in each only
if the part that reads it says so, in ``stacks``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError
from truerisk.recipe import Recipe
from truerisk.regularizer.dropout import DROPOUTS

TORCH_STACKS: dict[type, tuple[str, ...]] = {
    nn.CrossEntropyLoss: ("label_smoothing",),
    **dict.fromkeys(DROPOUTS, ("p",)),
}
"""``stacks`` of torch's own classes, which cannot say it themselves, and of what is derived."""


class NumberSlot(NamedTuple):
    """Where a number of a recipe stands: an attribute of one of its objects."""

    owner: Any
    attribute: str

    def read(self) -> Any:
        """Return the number."""
        return getattr(self.owner, self.attribute)

    def write(self, value: Any) -> None:
        """Put a number, or a tensor, in its place."""
        # past nn.Module's own __setattr__, which would take a tensor for one of its buffers
        if isinstance(self.owner, nn.Module):
            self.owner.__dict__[self.attribute] = value
        else:
            setattr(self.owner, self.attribute, value)


def declared_numbers(part: Any) -> tuple[str, ...]:
    """Return the names of the numbers that may differ within a stack.

    Args:
        part: the class of a loss, a regularizer or a module, or what a ``_target_`` names.

    >>> declared_numbers(nn.CrossEntropyLoss), declared_numbers(nn.HuberLoss)
    (('label_smoothing',), ())
    """
    if hasattr(part, "stacks"):
        return tuple(part.stacks)
    kinds = getattr(part, "__mro__", ())
    return next((TORCH_STACKS[kind] for kind in kinds if kind in TORCH_STACKS), ())


def find_numbers(recipe: Recipe) -> dict[str, NumberSlot]:
    """Find the numbers that J reads as it is evaluated and that are declared to stack, by name.

    Raises:
        ConfigError: a part declares a number that it does not hold.
    """
    slots = {}
    for key, owner in _find_readers(recipe).items():
        for name in declared_numbers(type(owner)):
            value = getattr(owner, name, ...)
            # None is part of what members have in common, and needs no place
            if value is not None:
                if not _is_number(value):
                    raise ConfigError(
                        f"{type(owner).__name__} declares stacks={declared_numbers(type(owner))}, "
                        f"but its attribute '{name}' is no number; keep the number there, and read "
                        "it anew at each evaluation"
                    )
                slots[f"{key}.{name}"] = NumberSlot(owner, name)
    return slots


def _find_readers(recipe: Recipe) -> dict[str, Any]:
    """Find the objects that an evaluation of J calls, by a name of their own.

    The other hooks of regularizers are called on each member's own objects.
    """
    readers: dict[str, Any] = {"surrogate": recipe.surrogate, "loss": recipe.surrogate.loss}
    readers |= {f"regularizer.{key}": recipe.regularizers[key] for key in recipe.hooks("penalty")}
    return readers | {f"model.{name}": m for name, m in recipe.model.named_modules()}


def differing_numbers(recipes: Sequence[Recipe]) -> dict[str, list[float]]:
    """Read each declared number that is not the same in all recipes: one value a recipe.

    Raises:
        ConfigError: another number that J reads differs, which would be member 0's for all.
    """
    slots = [find_numbers(recipe) for recipe in recipes]
    _check_undeclared([_find_readers(recipe) for recipe in recipes])
    values = {key: [float(own[key].read()) for own in slots] for key in slots[0]}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def _check_undeclared(readers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse recipes in which J reads different numbers that no part has declared."""
    for key, first in readers[0].items():
        declared = declared_numbers(type(first))
        for other in (own[key] for own in readers[1:]):
            for name, value in getattr(first, "__dict__", {}).items():
                if name not in declared and _differs(value, vars(other).get(name), first):
                    raise ConfigError(
                        f"{key}.{name} of {type(first).__name__} differs between the members, and "
                        "is not among the numbers that it declares in `stacks`"
                    )


def _differs(value: Any, other: Any, owner: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        # a layer may hold tensors that come of its weights, which are each member's own
        return not isinstance(owner, nn.Module) and not torch.equal(value, other)
    if isinstance(value, tuple | list) and all(map(_is_number, value)):
        return bool(value != other)
    return _is_number(value) and bool(value != other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def substituted(slots: Mapping[str, NumberSlot], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put values in the place of numbers inside the block.

    Args:
        slots: where the numbers stand.
        values: some of them by the same names, each [K] outside ``vmap`` and [] inside.
    """
    before = {key: slots[key].read() for key in values}
    try:
        for key, value in values.items():
            slots[key].write(value)
        yield
    finally:
        for key, number in before.items():
            slots[key].write(number)


def stack_numbers(values: Mapping[str, Sequence[float]], like: Tensor) -> dict[str, Tensor]:
    """Make tensors [K] of the values, in the dtype and on the device of ``like``."""
    return {
        key: torch.tensor(row, dtype=torch.float64).to(like.device, like.dtype)
        for key, row in values.items()
    }
