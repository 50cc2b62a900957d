"""Dropout masks for many members at once, each from its own stream of random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16
"""A unit is dropped if a number of 16 bits falls below a threshold."""


class DropoutStreams:
    """Streams of masks, one a member, that neither see each other nor the size of the group.

    Each is a generator SFC64 (O'Neill's test suite; NumPy's fastest): sixteen bits a unit are four
    times as cheap as what torch draws, which cost more than the rest of a step. A probability p is
    rounded to a multiple of 2⁻¹⁶ and kept units are divided by 1 − p as rounded, so that the mean
    stays what it was.

    >>> masks = DropoutStreams([1, 2])
    >>> x = masks.drop_units(torch.ones(2, 1000), torch.tensor([0.5, 0.0]))
    >>> x[0].unique().tolist(), x[1].unique().tolist()
    ([0.0, 2.0], [1.0])
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams: list[Any] = [np.random.SFC64(seed) for seed in seeds]
        self._wanted: dict[Any, list[int]] = {}
        self._asked: list[int] = []
        self._given: list[Tensor] | None = None

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.streams = [self.streams[row] for row in rows]

    def draw(self, count: int) -> Tensor:
        """Numbers of 16 bits, [K, count]: -2¹⁵ … 2¹⁵ − 1."""
        words = -(-count // 4)
        raw = np.stack([stream.random_raw(words) for stream in self.streams])
        return torch.from_numpy(raw.view(np.int16)[:, :count])

    def draw_ahead(self, kind: Any) -> list[Tensor]:
        """All that a forward pass of some kind will ask for, once one has shown what that is."""
        return [self.draw(count) for count in self._wanted.get(kind, ())]

    @contextmanager
    def replayed(self, drawn: list[Tensor], kind: Any) -> Iterator[None]:
        """What is asked for inside the block is taken from what has been drawn, if anything has."""
        self._given, self._asked = drawn or None, []
        try:
            yield
            self._wanted[kind] = self._asked
        finally:
            self._given = None

    def _next(self, count: int) -> Tensor:
        self._asked.append(count)
        return self.draw(count) if self._given is None else self._given[len(self._asked) - 1]

    def drop_units(self, x: Tensor, p: Tensor | float) -> Tensor:
        """x [K, …] with its units dropped with probability p, one for all or one a member [K]."""
        p = torch.as_tensor(p, dtype=torch.float64, device="cpu").expand(len(x))
        cut = (p * LEVELS).round()
        least = (cut - LEVELS // 2).clamp(max=LEVELS // 2 - 1).to(torch.int16)
        kept = self._next(x[0].numel()).to(x.device) >= least.to(x.device)[:, None]
        scale = (LEVELS / (LEVELS - cut)).view(-1, *(1,) * (x.ndim - 1))
        return x * _laid_out_as(x, kept) * scale.to(x.device, x.dtype)

    def state_dict(self) -> list[dict[str, Any]]:
        """Each member's stream, in plain numbers."""
        return [_plain(stream.state) for stream in self.streams]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Take up streams; None leaves one as it is."""
        for stream, state in zip(self.streams, states, strict=True):
            if state is not None:
                words = np.array(state["words"], dtype=np.uint64)
                stream.state = {**stream.state, "state": {"state": words}, **_carry(state)}


def _laid_out_as(x: Tensor, flat: Tensor) -> Tensor:
    """The numbers [K, …] in the order in which those of ``x`` lie in memory."""
    steps = x.stride()
    order = sorted(range(1, x.ndim), key=lambda d: -steps[d])
    stored = flat.reshape(len(x), *(x.shape[d] for d in order))
    return stored.permute(0, *(1 + order.index(d) for d in range(1, x.ndim)))


def _plain(state: Any) -> dict[str, Any]:
    words = [int(word) for word in state["state"]["state"]]
    return {"words": words, "has": int(state["has_uint32"]), "left": int(state["uinteger"])}


def _carry(state: dict[str, Any]) -> dict[str, int]:
    return {"has_uint32": state["has"], "uinteger": state["left"]}
