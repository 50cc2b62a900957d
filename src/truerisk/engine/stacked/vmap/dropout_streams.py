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
    """Streams of dropout masks, one a member, that know nothing of each other.

    Each is a generator SFC64, the fastest of NumPy's. A probability p is rounded to a multiple of
    2⁻¹⁶, and the units that stay are divided by 1 − p as rounded, so that the mean is what it was.

    Args:
        seeds: one a member.

    >>> streams = DropoutStreams([1, 2])
    >>> x = streams.drop_units(torch.ones(2, 1000), torch.tensor([0.5, 0.0]))
    >>> x[0].unique().tolist(), x[1].unique().tolist()
    ([0.0, 2.0], [1.0])
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams: list[Any] = [np.random.SFC64(seed) for seed in seeds]
        # by the kind of a forward pass, how many numbers a member each of its dropout layers takes
        self._counts_by_kind: dict[Any, list[int]] = {}
        self._counts: list[int] = []
        self._drawn: list[Tensor] | None = None

    @property
    def draws(self) -> bool:
        """Whether a forward pass has drawn any numbers."""
        return any(self._counts_by_kind.values())

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.streams = [self.streams[row] for row in rows]

    def draw(self, count: int) -> Tensor:
        """Draw ``count`` numbers of 16 bits from each stream: [K, count], from −2¹⁵ to 2¹⁵ − 1."""
        # Four from each word of 64 bits: what torch draws for a unit cost more than all the rest of
        # a step.
        words = -(-count // 4)
        raw = np.stack([stream.random_raw(words) for stream in self.streams])
        return torch.from_numpy(raw.view(np.int16)[:, :count])

    def knows(self, kind: Any) -> bool:
        """Tell whether a forward pass of some kind has shown what it takes."""
        return kind in self._counts_by_kind

    def draw_ahead(self, kind: Any) -> list[Tensor]:
        """Draw all that a forward pass of some kind takes; nothing before one has shown what."""
        # a pass that is played back cannot draw: what it takes is among its arguments
        return [self.draw(count) for count in self._counts_by_kind.get(kind, ())]

    @contextmanager
    def replayed(self, drawn: list[Tensor], kind: Any) -> Iterator[None]:
        """Let `drop_units` take what has been drawn, if anything has, and note what it takes.

        Args:
            drawn: from `draw_ahead`.
            kind: that of the forward pass inside the block.
        """
        self._drawn, self._counts = drawn or None, []
        try:
            yield
            self._counts_by_kind[kind] = self._counts
        finally:
            self._drawn = None

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Take back what is drawn inside the block."""
        states = [stream.state for stream in self.streams]
        try:
            yield
        finally:
            for stream, state in zip(self.streams, states, strict=True):
                stream.state = state

    def _take(self, count: int) -> Tensor:
        self._counts.append(count)
        if self._drawn is None:
            return self.draw(count)
        return self._drawn[len(self._counts) - 1]

    def drop_units(self, x: Tensor, p: Tensor | float) -> Tensor:
        """Set units to zero, each with probability p, and scale the others by 1/(1 − p).

        Args:
            x: [K, …].
            p: one for all members, or one a member, [K].
        """
        p_K = torch.as_tensor(p, dtype=torch.float64, device="cpu").expand(len(x))
        cut_K = (p_K * LEVELS).round()
        least_K = (cut_K - LEVELS // 2).clamp(max=LEVELS // 2 - 1).to(torch.int16)
        drawn_KP = self._take(x[0].numel())[: len(x)]  # of the first member alone in a rehearsal
        keep_KP = drawn_KP.to(x.device) >= least_K.to(x.device)[:, None]
        scale = (LEVELS / (LEVELS - cut_K)).view(-1, *(1,) * (x.ndim - 1))
        return x * _lay_out_as(x, keep_KP) * scale.to(x.device, x.dtype)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each member's stream, in plain numbers."""
        return [_encode_state(stream.state) for stream in self.streams]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Restore the streams; None leaves one as it is."""
        for stream, state in zip(self.streams, states, strict=True):
            if state is not None:
                words = np.array(state["words"], dtype=np.uint64)
                stream.state = {**stream.state, "state": {"state": words}, **_decode_buffer(state)}


def _lay_out_as(x: Tensor, flat: Tensor) -> Tensor:
    """Shape numbers [K, P] like ``x``, in the order in which its own lie in memory."""
    # the product of two tensors of one layout takes them in one run
    steps = x.stride()
    order = sorted(range(1, x.ndim), key=lambda d: -steps[d])
    stored = flat.reshape(len(x), *(x.shape[d] for d in order))
    return stored.permute(0, *(1 + order.index(d) for d in range(1, x.ndim)))


def _encode_state(state: Any) -> dict[str, Any]:
    words = [int(word) for word in state["state"]["state"]]
    return {"words": words, "has": int(state["has_uint32"]), "left": int(state["uinteger"])}


def _decode_buffer(state: dict[str, Any]) -> dict[str, int]:
    return {"has_uint32": state["has"], "uinteger": state["left"]}
