"""A function of stacked tensors, called as machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.engine.stacked.member_code.machine_code import load_function
from truerisk.engine.stacked.member_code.program import Program, write_program


class CompiledFunction:
    """Call a function for one member after another, as machine code.

    Args:
        function: of tensors [K, …], each of whose results is [K, …]; it does the same to tensors of
            the same dtypes, shapes and strides, whatever they hold, and draws nothing at random.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self.function = function
        self._codes: dict[Any, _Code | None] = {}

    def find_code(self, tensors: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]] | None:
        """Find what to call with tensors like these; None where there is none."""
        kind = tuple((t.shape[1:], t.stride(), t.dtype, t.device.type) for t in tensors)
        if kind not in self._codes:
            self._codes[kind] = self._compile(tensors)
        return self._codes[kind]

    def _compile(self, tensors: Sequence[Tensor]) -> _Code | None:
        if tensors[0].device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return None
        try:
            program = write_program(self.function, tensors)
        # whatever a function, perhaps a user's own, cannot do without numbers
        except Exception:
            return None
        run = load_function(program.source)
        return None if run is None else _Code(program, run)


class _Code:
    """The machine code of one kind of tensors."""

    def __init__(self, program: Program, run: Any) -> None:
        self.program, self.run = program, run
        self.scratch = torch.empty(program.scratch + 64, dtype=torch.uint8)
        start = self.scratch.data_ptr()
        self.place = ctypes.c_void_p(start + -start % 64)

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        members = len(tensors[0])
        memories = [torch.empty(members, size, dtype=d) for d, size in self.program.memories]
        given = [*tensors, *self.program.constants, *memories]
        pointers = (ctypes.c_void_p * len(given))(*(t.data_ptr() for t in given))
        steps = (ctypes.c_long * len(given))(
            *(t.stride(0) for t in tensors), *[0] * len(self.program.constants),
            *(t.stride(0) for t in memories),
        )
        self.run(
            ctypes.c_long(0), ctypes.c_long(members), pointers, steps, self.place
        )
        return tuple(
            memories[r.root].as_strided(
                (members, *r.sizes), (memories[r.root].shape[1], *r.strides), r.offset
            )
            for r in self.program.results
        )
