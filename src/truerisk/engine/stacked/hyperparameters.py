"""The numbers of an update, one a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Hyperparameters:
    """The members' numbers for one group of parameters, as columns [K, 1].

    ``exact`` has them in double precision, ``numbers[name]`` in the type of the weights, and
    ``switches`` what is on or off for all of them.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        switches: Sequence[str],
        like: Tensor,
    ) -> None:
        self.like = like
        self.switches = {name: bool(groups[0].get(name, False)) for name in switches}
        self.exact = _columns(groups, names, like.device)
        self._cast: dict[str, Tensor] = {}
        self._rest: dict[str, Tensor] = {}
        self._alike: list[tuple[list[int], dict[str, float]]] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """A number, in the type of the weights."""
        if name not in self._cast:
            self._cast[name] = self.cast(self.exact[name])
        return self._cast[name]

    def rest(self, name: str) -> Tensor:
        """1 minus a number."""
        if name not in self._rest:
            self._rest[name] = self.cast(1 - self.exact[name])
        return self._rest[name]

    def alike(self) -> list[tuple[list[int], dict[str, float]]]:
        """The rows that have the same numbers, and those."""
        if self._alike is None:
            rows: dict[tuple[float, ...], list[int]] = {}
            columns = [column.flatten().tolist() for column in self.exact.values()]
            for k, own in enumerate(zip(*columns, strict=True)):
                rows.setdefault(own, []).append(k)
            self._alike = [(k, dict(zip(self.exact, own, strict=True))) for own, k in rows.items()]
        return self._alike

    def cast(self, numbers: Tensor) -> Tensor:
        """Numbers in the type of the weights."""
        return numbers.to(self.like.dtype)

    def any(self, name: str) -> bool:
        """Whether a number is not zero for some member."""
        return bool((self.exact[name] != 0).any())


def _columns(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str], device: torch.device
) -> dict[str, Tensor]:
    """The values of each name, pairs of betas by themselves; a number a class lacks is zero."""
    rows: dict[str, list[float]] = {}
    for name in names:
        if name == "betas":
            rows["beta1"], rows["beta2"] = map(
                list, zip(*(g["betas"] for g in groups), strict=True)
            )
        else:
            rows[name] = [group.get(name, 0.0) for group in groups]
    return {
        name: torch.tensor(row, dtype=torch.float64, device=device).unsqueeze(1)
        for name, row in rows.items()
    }
