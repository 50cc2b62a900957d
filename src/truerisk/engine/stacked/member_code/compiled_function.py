"""A function of stacked tensors, called as machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from truerisk.data.encoder import Standardizer
from truerisk.engine.stacked.member_code.layout import is_whole
from truerisk.engine.stacked.member_code.machine_code import load_function
from truerisk.engine.stacked.member_code.program import ALIGNED, Program, write_program

AS_THEY_ARE = Standardizer()
"""What leaves rows as they lie in a source."""
COMPILED_FROM = 1000
"""Steps of a run for which it is worth some seconds to compile them."""


def is_worth_compiling(steps: int) -> bool:
    """Tell whether runs of so many steps are compiled."""
    # of the whole run, not of what is left: one that was cut off goes on with the same digits
    return steps >= COMPILED_FROM


@dataclass(frozen=True)
class PickedRows:
    """A tensor [K, n, …] whose rows are picked from a source where it is read.

    Attributes:
        source: [N, …], contiguous.
        index: int64 [K, n], those of a member side by side.
        standardizer: of the rows.
    """

    source: Tensor
    index: Tensor
    standardizer: Standardizer = AS_THEY_ARE

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, k: int) -> Tensor:
        return self.standardizer(self.source[self.index[k].to(self.source.device)])

    @property
    def shape(self) -> torch.Size:
        """That of the tensor."""
        return self.index.shape + self.source.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """That of the source."""
        return self.source.dtype

    @property
    def device(self) -> torch.device:
        """That of the source."""
        return self.source.device

    @property
    def first(self) -> PickedRows:
        """Those of the first member."""
        return replace(self, index=self.index[:1])

    @property
    def outline(self) -> Tensor:
        """A tensor like it that holds no numbers."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def pick(self) -> Tensor:
        """Pick the rows of all members."""
        flat = self.index.reshape(-1).to(self.source.device)
        rows = self.source.index_select(0, flat)
        return self.standardizer(rows, in_place=True).unflatten(0, self.index.shape)


def pick_all(tensors: Sequence[Tensor | PickedRows]) -> list[Tensor]:
    """Return tensors, with the rows of those picked that are not there yet."""
    return [tensor.pick() if isinstance(tensor, PickedRows) else tensor for tensor in tensors]


class CompiledFunction:
    """Call a function for one member after another, as machine code.

    Args:
        function: of tensors [K, …], each of whose results is [K, …]; it does the same to tensors of
            the same dtypes, shapes and strides, whatever they hold, and draws nothing at random.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self.function = function
        self._codes: dict[Any, _Code | None] = {}

    @property
    def has_code(self) -> bool:
        """Whether there is machine code of tensors that have been seen."""
        return any(code is not None for code in self._codes.values())

    def find_code(self, tensors: Sequence[Tensor | PickedRows]) -> _Code | None:
        """Find what to call with tensors like these; None where there is none."""
        kind = tuple(map(_describe_kind, tensors))
        if kind not in self._codes:
            self._codes[kind] = self._compile(tensors)
        return self._codes[kind]

    def _compile(self, given: Sequence[Tensor | PickedRows]) -> _Code | None:
        if given[0].device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return None
        picked = {i: own for i, own in enumerate(given) if isinstance(own, PickedRows)}

        def read_and_call(*tensors: Tensor) -> tuple[Tensor, ...]:
            whole = list(tensors)
            for i, own in picked.items():
                whole[i] = own.standardizer(whole[i], in_place=True)
            return self.function(*whole)

        try:
            tensors = [t.outline if isinstance(t, PickedRows) else t for t in given]
            program = write_program(read_and_call, tensors, list(picked))
        # whatever a function, perhaps a user's own, cannot do without numbers
        except Exception:
            return None
        run = load_function(program.source)
        return None if run is None else _Code(program, run)


def _describe_kind(tensor: Tensor | PickedRows) -> tuple[Any, ...]:
    if isinstance(tensor, PickedRows):
        # whose means and scales are the code's own
        own = tensor.standardizer
        return tensor.shape[1:], tensor.dtype, tensor.device.type, own
    return tensor.shape[1:], tensor.stride(), tensor.dtype, tensor.device.type


class _Code:
    """The machine code of one kind of tensors."""

    def __init__(self, program: Program, run: Any) -> None:
        self.program, self.run = program, run
        self.scratch = torch.empty(program.scratch + ALIGNED, dtype=torch.uint8)
        start = self.scratch.data_ptr()
        self.place = ctypes.c_void_p(start + -start % ALIGNED)
        roots = [result.root for result in program.results]
        self.may_be_given = [
            roots.count(result.root) == 1 and is_whole(result, program.memories[result.root][1])
            for result in program.results
        ]
        count = len(program.constants)
        self.constants = [tensor.data_ptr() for tensor in program.constants], [0] * count

    def __call__(
        self, arguments: Sequence[Tensor | PickedRows], into: Sequence[Tensor | None] = ()
    ) -> tuple[Tensor, ...]:
        bound = self.bind(arguments, into)
        bound.run(ctypes.c_long(0), ctypes.c_long(len(arguments[0])), *bound.given)
        # of one step, where they are not given
        return tuple(
            result if any(result is place for place in into) else result[0]
            for result in bound.results
        )

    def bind(
        self,
        arguments: Sequence[Tensor | PickedRows],
        into: Sequence[Tensor | None] = (),
        moved: Mapping[int, int] = MappingProxyType({}),
        steps: int = 1,
    ) -> BoundCode:
        """Bind the code to tensors, for one step or several.

        Args:
            arguments: those of the first step.
            into: what each result may be written to, the same at each step.
            moved: bytes from an argument of a step to that of the next, by the argument's number;
                of rows that are picked, those between their indices.
            steps: how many.
        """
        picked = self.program.picked
        indices = [own.index for own in arguments if isinstance(own, PickedRows)]
        tensors = [own.source if isinstance(own, PickedRows) else own for own in arguments]
        members, results = len(arguments[0]), self.program.results
        given = {
            result.root: place
            for result, may, place in zip(results, self.may_be_given, into, strict=False)
            if may and place is not None
        }
        made = {
            i: torch.empty(steps, members, size, dtype=dtype)
            for i, (dtype, size) in enumerate(self.program.memories)
            if i not in given
        }
        memories = [
            given[i] if i in given else made[i][0] for i in range(len(self.program.memories))
        ]
        read, still = self.constants
        written = [*memories, *indices]
        pointers = [t.data_ptr() for t in tensors] + read + [t.data_ptr() for t in written]
        strides = [t.stride(0) for t in tensors] + still + [t.stride(0) for t in written]
        moves = [0 if i in picked else moved.get(i, 0) for i in range(len(tensors))]
        moves += [0] * len(read)
        moves += [
            made[i].stride(0) * made[i].itemsize if i in made else 0 for i in range(len(memories))
        ]
        moves += [moved.get(number, 0) for number in picked]
        count = len(pointers)
        return BoundCode(
            self.run,
            (
                (ctypes.c_void_p * count)(*pointers),
                (ctypes.c_long * count)(*strides),
                self.place,
            ),
            (ctypes.c_long * count)(*moves),
            tuple(
                given[r.root]
                if r.root in given
                else made[r.root].as_strided(
                    (steps, members, *r.sizes), (*made[r.root].stride()[:2], *r.strides), r.offset
                )
                for r in results
            ),
            [*tensors, *indices],
        )


@dataclass(frozen=True)
class BoundCode:
    """Machine code with the tensors that it is called with.

    Attributes:
        run: the function in C.
        given: pointers, their steps from member to member, and scratch memory.
        moves: bytes by which the pointers move from step to step.
        results: its tensors, those that were given, or [steps, K, …].
        held: what is pointed to.
    """

    run: Any
    given: tuple[Any, ...]
    moves: Any
    results: tuple[Tensor, ...]
    held: Sequence[Tensor]


class _Call(ctypes.Structure):
    """``call`` of ``steps_ahead.h``."""

    _fields_ = (
        ("run", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("pointers", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("moves", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
    )


@cache
def load_driver() -> Any | None:
    """Load what `run_steps` calls; None where it cannot be compiled, as on a full disk."""
    return load_function(files(__package__).joinpath("steps_ahead.h").read_text())


def run_steps(calls: Sequence[BoundCode], watched: Sequence[Tensor]) -> list[int]:
    """Run calls in turn, step by step, for one member after another.

    Args:
        calls: bound to the same steps and members.
        watched: [steps, K] of the first call's results, after which a member goes no further at the
            first step where one is not finite.

    Returns:
        How many steps each member has taken.
    """
    run = load_driver()
    assert run is not None
    steps, members = watched[0].shape
    given = (_Call * len(calls))(
        *(
            _Call(
                ctypes.cast(call.run, ctypes.c_void_p).value,
                len(call.moves),
                *(ctypes.cast(part, ctypes.c_void_p).value for part in call.given[:2]),
                ctypes.cast(call.moves, ctypes.c_void_p).value,
                call.given[2].value,
            )
            for call in calls
        )
    )
    numbers = (ctypes.c_void_p * len(watched))(*(tensor.data_ptr() for tensor in watched))
    done = (ctypes.c_long * members)()
    sizes = map(ctypes.c_long, (members, steps, len(calls)))
    wide = ctypes.c_long(watched[0].dtype == torch.float64)
    run(*sizes, given, ctypes.c_long(len(watched)), numbers, wide, done)
    return list(done)
