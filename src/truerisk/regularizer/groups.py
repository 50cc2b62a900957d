"""Parameters grouped by rules, looked up once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from truerisk.core.errors import ConfigError, suggest
from truerisk.core.parameter_rules import MATCHERS, split

Rules = Sequence[Mapping[str, Any]]


class Group(NamedTuple):
    """Names of parameters, and the numbers a rule sets for them."""

    numbers: dict[str, Any]
    names: tuple[str, ...]


class Groups:
    """Splits parameters by ``rules`` on the first call and remembers the outcome.

    ``key`` is the regularizer's place in the config and ``numbers`` are the names a rule may set;
    the first of them is its strength: a group whose strength is 0 or null is left out.

    Raises:
        ConfigError: a rule sets something else.

    >>> import torch
    >>> groups = Groups("regularizer.l2", ["coefficient"], [{"max_ndim": 1, "coefficient": 0}])
    >>> groups({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    [Group(numbers={}, names=('weight',))]
    """

    def __init__(self, key: str, numbers: Sequence[str], rules: Rules | None = ()) -> None:
        self.strength = numbers[0]
        self.rules = [dict(rule) for rule in rules or ()]
        self._names: tuple[str, ...] | None = None
        self._groups: list[Group] = []
        for rule in self.rules:
            _refuse_unknown(key, rule, (*numbers, *MATCHERS))

    def __call__(self, params: Mapping[str, Tensor]) -> list[Group]:
        """Return the groups of these parameters."""
        names = tuple(params)
        if names != self._names:
            parts = split(params.items(), self.rules)
            self._groups = [
                Group(numbers, tuple(members))
                for numbers, members in parts
                if numbers.get(self.strength, 1) not in (0, None)
            ]
            self._names = names
        return self._groups


def _refuse_unknown(key: str, rule: Mapping[str, Any], known: Iterable[str]) -> None:
    for word in rule:
        if word not in known:
            raise ConfigError(
                f"{key}.rules sets `{word}`, which is unknown; {suggest(word, known)}"
            )
