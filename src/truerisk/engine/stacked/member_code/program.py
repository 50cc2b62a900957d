"""A recorded function of stacked tensors, written out in C for one member after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, fx

from truerisk.core.without_dynamo import leave_dynamo_out_of_shapes
from truerisk.engine.stacked.member_code.layout import (
    MARK,
    TYPES,
    Layout,
    NotKnown,
    read_axis,
    read_layout,
)
from truerisk.engine.stacked.member_code.operations import (
    AXES,
    FILLED,
    WRITERS,
    Call,
    join_loops,
    write_pointwise,
)
from truerisk.engine.stacked.member_code.recording import record_operations

ALIGNED = 64
"""Bytes on which scratch tensors begin."""
LARGEST = 3000
"""Operations from which on a compiler takes longer than is worth while."""


@dataclass
class Memory:
    """What views share: an argument, a result, or scratch that is one member's after another's.

    Attributes:
        name: in C.
        dtype: of its numbers.
        extent: how many of them a member has.
        per_member: whether members have their own.
    """

    name: str
    dtype: torch.dtype
    extent: int
    per_member: bool


@dataclass(frozen=True)
class Program:
    """A function in C, and what it is called with.

    Attributes:
        source: of ``run(first, end, pointers, steps, scratch)``, of members from first to end.
        constants: tensors that it reads after its arguments.
        picked: numbers of the arguments that are given as rows of a source and, after the results,
            an index.
        results: the layout of each result, whose root is the number of its memory.
        memories: of the results, the dtype and the numbers a member.
        scratch: bytes.
    """

    source: str
    constants: list[Tensor]
    picked: list[int]
    results: list[Layout]
    memories: list[tuple[torch.dtype, int]]
    scratch: int


def write_program(
    function: Callable[..., tuple[Tensor, ...]],
    tensors: Sequence[Tensor],
    picked: Sequence[int] = (),
) -> Program:
    """Record a function, and write what it does to one member.

    Args:
        function: of tensors [K, …], each of whose results is [K, …].
        tensors: like those it will be called with.
        picked: numbers of those whose rows are picked from a source for one member at a time.

    Raises:
        NotKnown: it cannot be written so.
    """
    leave_dynamo_out_of_shapes()
    marked = [
        torch.empty_strided(
            (MARK, *t.shape[1:]), t.stride(), dtype=t.dtype, device="meta"
        ).requires_grad_(t.requires_grad)
        for t in tensors
    ]
    rows = {number: tensors[number].shape[1] for number in picked}
    return _Writer(record_operations(function, marked), rows).write()


@dataclass
class _Writer:
    """Go through a recording.

    Attributes:
        recording: with ``MARK`` members, and no numbers.
        picked: by the number of an argument, how many rows of a source it is made of.
        constants: tensors that the function has beside its arguments.
        memories: by the root of their layouts.
        same: roots that are another one, seen otherwise.
        inside: names of memories that are there in one loop alone.
    """

    recording: fx.GraphModule
    picked: Mapping[int, int] = field(default_factory=dict)
    constants: list[Tensor] = field(default_factory=list)
    memories: dict[Any, Memory] = field(default_factory=dict)
    same: dict[Any, Any] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)

    def write(self) -> Program:
        """Write what is needed of it."""
        calls, results = self.read_calls()
        needed = self.find_needed(calls, results)
        calls = [call for call in calls if self.is_needed(call, needed)]
        if len(calls) > LARGEST:
            raise NotKnown(f"{len(calls)} operations")
        places = list(dict.fromkeys(result.root for result in results))
        for number, root in enumerate(places):
            self.memories[root].name = f"r{number}"
        unknown = {call.name for call in calls} - WRITERS.keys()
        if unknown:
            raise NotKnown(", ".join(sorted(unknown)))
        loops = join_loops(calls)
        scratch = self.place_scratch(loops)
        return Program(
            self.write_source(loops, places, scratch),
            self.constants,
            list(self.picked),
            [result._replace(root=places.index(result.root)) for result in results],
            [(self.memories[root].dtype, self.memories[root].extent) for root in places],
            max((end for _, end in scratch.values()), default=0),
        )

    def read_calls(self) -> tuple[list[Call], list[Layout]]:
        """Read the operations that write something, and what is returned."""
        calls: list[Call] = []
        results: list[Layout] = []
        for node in self.recording.graph.nodes:
            if node.op == "placeholder":
                self.add_argument(read_layout(node.meta["val"]))
            elif node.op == "get_attr":
                self.add_constant(node)
            elif node.op == "output":
                results = [self.find_layout(arg) for arg in node.args[0]]
            elif node.op != "call_function":
                raise NotKnown(f"{node.op} {node.target}")
            elif isinstance(node.target, torch._ops.OpOverload):
                call = self.read_call(node)
                calls += [call] if call else []
        if any(self.memories[r.root].name[0] == "a" or not r.per_member for r in results):
            raise NotKnown("a result that is an argument, or of all members")
        return calls, results

    def add_argument(self, layout: Layout) -> None:
        """Note memory that is given."""
        name = f"a{sum(memory.name[0] == 'a' for memory in self.memories.values())}"
        self.memories[layout.root] = Memory(name, layout.dtype, layout.extent, layout.per_member)

    def add_constant(self, node: Any) -> None:
        """Note a tensor that the function has beside its arguments."""
        self.constants.append(getattr(self.recording, node.target))
        self.add_argument(read_layout(node.meta["val"]))

    def read_call(self, node: Any) -> Call | None:
        """Read an operation; None of one that gives a view."""
        name = node.target.overloadpacket.__name__
        values = node.meta["val"]
        values = values if isinstance(values, tuple | list) else [values]
        if not all(isinstance(value, Tensor) for value in values):
            raise NotKnown(f"what {name} gives")
        out = tuple(map(read_layout, values))
        changes = node.target._schema.is_mutable
        if not changes and all(o.root in self.memories or o.root in self.same for o in out):
            return None
        if name in FILLED:
            args: tuple[Any, ...] = ()
        else:
            args = (*fx.node.map_arg(node.args, self.find_layout), *_read_defaults(node))
        if changes:
            options = dict(node.kwargs)
            where = self.find_layout(options.pop("out")) if "out" in options else args[0]
            return Call(name, (where,), args, options, ())
        if self.is_view(node):  # of a number, which a recording has anew each time
            self.same[out[0].root] = args[0].root
            return None
        for layout in out:
            if layout.root not in self.memories:
                number = f"s{len(self.memories)}"
                extent, own = layout.extent, layout.per_member
                self.memories[layout.root] = Memory(number, layout.dtype, extent, own)
        return Call(name, out, args, dict(node.kwargs), self.find_axes(node))

    @staticmethod
    def is_view(node: Any) -> bool:
        """Tell whether an operation gives what it is given, seen otherwise."""
        return any(result.alias_info is not None for result in node.target._schema.returns)

    def find_layout(self, node: Any) -> Layout:
        """Find the layout of what a node gives."""
        if not isinstance(node, fx.Node) or not isinstance(node.meta.get("val"), Tensor):
            raise NotKnown(f"the value {node}")
        layout = read_layout(node.meta["val"])
        layout = layout._replace(root=self.same.get(layout.root, layout.root))
        memory = self.memories.get(layout.root)
        if memory is None or (memory.per_member and not layout.per_member):
            raise NotKnown(f"memory of {node}")
        return layout

    def find_axes(self, node: Any) -> tuple[int, ...]:
        """Find the axes that an operation goes along, of one member."""
        name = node.target.overloadpacket.__name__
        if name.startswith("nll_loss2d"):
            return (0,)
        if name not in AXES:
            return ()
        joined = name in ("cat", "stack")
        tensor = node.meta["val"] if joined else node.args[0].meta["val"]
        given = node.args[AXES[name]] if len(node.args) > AXES[name] else [0] if joined else []
        axes = given if isinstance(given, list) else [given]
        # some of each member's may be joined, but never taken apart
        if not joined and any(tensor.shape[axis] % MARK == 0 for axis in axes):
            raise NotKnown("members are taken together")
        return tuple(read_axis(tensor, axis) for axis in axes)

    def find_needed(self, calls: Sequence[Call], results: Sequence[Layout]) -> set[Any]:
        """Find the memories that the results, and changes of arguments, depend on."""
        needed = {layout.root for layout in results}
        needed |= {root for root, memory in self.memories.items() if memory.name[0] == "a"}
        for call in reversed(calls):
            if self.is_needed(call, needed):
                needed |= {layout.root for layout in call.layouts}
        return needed

    @staticmethod
    def is_needed(call: Call, needed: set[Any]) -> bool:
        """Tell whether an operation writes to one of some memories."""
        return any(layout.root in needed for layout in call.out)

    def place_scratch(self, loops: Sequence[Sequence[Call]]) -> dict[Any, tuple[int, int]]:
        """Give each scratch tensor its bytes, from and to, which it takes over from dead ones."""
        touched = [dict.fromkeys(o.root for call in loop for o in call.layouts) for loop in loops]
        last = {root: number for number, roots in enumerate(touched) for root in roots}
        first: dict[Any, int] = {}
        places: dict[Any, tuple[int, int]] = {}
        for root in (list(self.memories)[number] for number in self.picked):
            memory, taken = self.memories[root], sorted(places.values())
            places[root] = _find_gap(taken, memory.extent * memory.dtype.itemsize)
        for number, roots in enumerate(touched):
            alive = sorted(place for root, place in places.items() if last.get(root, -1) >= number)
            for root in roots:
                memory = self.memories[root]
                if first.setdefault(root, number) < number or memory.name[0] != "s":
                    continue
                if last[root] == number and len(loops[number]) > 1:
                    self.inside.add(memory.name)  # it is there in one loop, and nowhere else
                    continue
                places[root] = _find_gap(alive, memory.extent * memory.dtype.itemsize)
                alive = sorted([*alive, places[root]])
        return places

    def write_source(
        self,
        loops: Sequence[Sequence[Call]],
        results: Sequence[Any],
        scratch: dict[Any, tuple[int, int]],
    ) -> str:
        """Write the function in C."""
        arguments = [m for m in self.memories.values() if m.name[0] == "a"]
        given = [*arguments, *(self.memories[root] for root in results)]
        pointers = [
            f"{TYPES[m.dtype]} *{m.name} = ({TYPES[m.dtype]} *)pointers[{i}] + k * steps[{i}];"
            for i, m in enumerate(given)
            if i not in self.picked
        ]
        for root, (start, _) in scratch.items():
            name, type_ = self.memories[root].name, TYPES[self.memories[root].dtype]
            pointers.append(f"{type_} *{name} = ({type_} *)(scratch + {start});")
        for i, (number, rows) in enumerate(self.picked.items(), len(given)):
            memory = given[number]
            index = f"(int64_t *)pointers[{i}] + k * steps[{i}]"
            size = memory.extent // rows * memory.dtype.itemsize
            pointers.append(
                f"pick_rows({memory.name}, pointers[{number}], {index}, {rows}, {size});"
            )
        functions: dict[str, str] = {}
        calls_in_c = [self.write_call(loop, functions) for loop in loops]
        definitions = [
            f"static __attribute__((noinline)) void {name}{text}"
            for text, name in functions.items()
        ]
        return "\n".join(
            [
                files(__package__).joinpath("operations.h").read_text(),
                *definitions,
                "void run(long first, long end, void **pointers, const long *steps, char *scratch)",
                "{",
                "for (long k = first; k < end; k++) {",
                *pointers,
                *calls_in_c,
                "}",
                "}",
                "",
            ]
        )

    def write_call(self, loop: Sequence[Call], functions: dict[str, str]) -> str:
        """Write the call of a function that does some operations, which like ones share."""
        # a recurrent layer does the same at each place: a compiler reads it once
        parameters: dict[tuple[Any, int], str] = {}
        places: list[str] = []
        inside: dict[Any, str] = {}

        def named(value: Any) -> Any:
            if isinstance(value, list):
                return [named(part) for part in value]
            if not isinstance(value, Layout):
                return value
            memory = self.memories[value.root].name
            if memory in self.inside:
                return value._replace(root=inside.setdefault(memory, f"v{len(inside)}"))
            key = value.root, value.offset
            if key not in parameters:
                parameters[key] = f"{value.type} *p{len(places)}"
                places.append(f"{memory} + {value.offset}")
            return value._replace(root=parameters[key].partition("*")[2], offset=0)

        own = [
            call._replace(
                out=tuple(named(layout) for layout in call.out),
                args=tuple(named(arg) for arg in call.args),
            )
            for call in loop
        ]
        if len(own) > 1:
            written = write_pointwise(*own, inside=set(inside.values()))
        else:
            written = WRITERS[own[0].name](own[0])
        text = f"({', '.join(parameters.values())})\n{{\n{written}\n}}"
        name = functions.setdefault(text, f"{loop[0].name}_{len(functions)}")
        return f"{name}({', '.join(places)});"


def _read_defaults(node: Any) -> list[Any]:
    """Read the arguments that were not given by place or by name."""
    left = node.target._schema.arguments[len(node.args) :]
    return [a.default_value for a in left if not (a.kwarg_only or a.name in node.kwargs)]


def _find_gap(taken: Sequence[tuple[int, int]], size: int) -> tuple[int, int]:
    """Find the first bytes that are free, from and to."""
    start = 0
    for begin, end in taken:
        if start + size <= begin:
            break
        start = max(start, end)
    return start, start + -(-size // ALIGNED) * ALIGNED
