"""What each of torch's operations is in C, for one member."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from truerisk.engine.stacked.member_code.layout import (
    Layout,
    NotKnown,
    broadcast_strides,
    write_loops,
)

Argument = Any
"""A `Layout`, or what else an operation is given."""


class Call(NamedTuple):
    """An operation that was recorded.

    Attributes:
        name: that of the operation.
        out: what it writes; several where it gives several.
        args: its arguments, layouts for tensors.
        options: those given by name.
        axes: the axes of the first argument that are named by one of the others.
    """

    name: str
    out: tuple[Layout, ...]
    args: tuple[Argument, ...]
    options: Mapping[str, Any]
    axes: tuple[int, ...]

    @property
    def layouts(self) -> list[Layout]:
        """All that it reads and writes."""
        parts = [part for arg in self.args for part in (arg if isinstance(arg, list) else [arg])]
        return [*self.out, *(part for part in parts if isinstance(part, Layout))]


POINTWISE = {
    "add": "{0} + {alpha} * {1}",
    "addcmul": "{0} + {alpha} * {1} * {2}",
    "lerp": "{2} < 0.5 ? {0} + {2} * ({1} - {0}) : {1} - ({1} - {0}) * (1 - {2})",
    "sign": "({0} > 0) - ({0} < 0)",
    "bitwise_or": "{0} | {1}",
    "sub": "{0} - {alpha} * {1}",
    "rsub": "{1} - {alpha} * {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "FABS({0})",
    "exp": "EXP({0})",
    "log": "LOG({0})",
    "sqrt": "SQRT({0})",
    "rsqrt": "1 / SQRT({0})",
    "reciprocal": "1 / {0}",
    "tanh": "TANH({0})",
    "sigmoid": "1 / (1 + EXP(-{0}))",
    "relu": "{0} < 0 ? 0 : {0}",
    "threshold_backward": "{1} <= {2} ? 0 : {0}",
    "tanh_backward": "{0} * (1 - {1} * {1})",
    "sigmoid_backward": "{0} * (1 - {1}) * {1}",
    "where": "{0} ? {1} : {2}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "pow": "POW({0}, {1})",
    "mse_loss": "({0} - {1}) * ({0} - {1})",
    "mse_loss_backward": "2 * ({1} - {2}) * {0}",
    "gelu": "GELU({0})",
    "gelu_backward": "{0} * GELU_SLOPE({1})",
    "silu": "{0} / (1 + EXP(-{0}))",
    "silu_backward": "{0} * SILU_SLOPE({1})",
    "leaky_relu": "{0} > 0 ? {0} : {0} * {1}",
    "leaky_relu_backward": "{1} > 0 ? {0} : {0} * {2}",
    "masked_fill": "{1} ? {2} : {0}",
    "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}",
    "minimum": "{0} < {1} || {0} != {0} ? {0} : {1}",
    "clamp_min": "{0} < {1} ? {1} : {0}",
    "clamp_max": "{0} > {1} ? {1} : {0}",
    "round": "RINT({0})",
    "clone": "{0}",
    "lift_fresh_copy": "{0}",
    "scalar_tensor": "{0}",
    "_to_copy": "{0}",
    "copy": "{1}",
}
"""A number of the result, by those of the arguments."""

COPIES = frozenset({"clone", "_to_copy", "copy", "lift_fresh_copy", "where"})
"""Operations that only change the type of whole numbers."""
ONLY = {"mse_loss": (2, 0), "mse_loss_backward": (3, 0)}
"""What one of the arguments must be."""
IGNORED = frozenset({"alpha", "value", "dtype", "layout", "device", "memory_format", "pin_memory"})
"""Options that a loop knows, or that the result shows."""

FILLED = {"new_zeros": 0, "zeros_like": 0, "zeros": 0, "ones_like": 1, "ones": 1}
"""Operations of which only the shape of their argument counts, and what they fill with."""


class Pointwise(NamedTuple):
    """A number of a result, by those at the same place of its operands.

    Attributes:
        out: the result.
        operands: what it is of.
        write: the value, of the operands' numbers in C.
    """

    out: Layout
    operands: tuple[Layout, ...]
    write: Callable[[Sequence[str]], str]


def read_pointwise(call: Call) -> Pointwise:
    """Read an operation that is one of `POINTWISE`."""
    name = call.name.rstrip("_")
    if name == "clamp":
        call, expression = _read_bounds(call)
    elif name == "pow" and call.args[1] == 2:
        expression = "{0} * {0}"
    else:
        expression = POINTWISE[name]
    if name in ONLY and call.args[ONLY[name][0]] != ONLY[name][1]:
        raise NotKnown(f"another {name}")
    if not IGNORED.issuperset(call.options):
        raise NotKnown(f"{name} with {call.options}")
    (out,) = call.out
    operands = tuple(arg for arg in call.args if isinstance(arg, Layout))
    real = [operand.type for operand in operands if operand.type in ("float", "double")]
    if out.type in ("float", "double") and operands and not real and name not in COPIES:
        raise NotKnown(f"{name} of whole numbers")
    # numbers are compared in their own type
    type_ = real[0] if real and out.type not in ("float", "double") else out.type
    factor = write_number(call.options.get("alpha", call.options.get("value", 1)), type_)

    def write(numbers: Sequence[str]) -> str:
        read = iter(numbers)
        values = [
            next(read) if isinstance(arg, Layout) else write_number(arg, type_)
            for arg in call.args
            if isinstance(arg, Layout | int | float)
        ]
        value = _typed(expression, type_).format(*values, alpha=factor)
        return f"({value}) != 0" if out.type == "uint8_t" else value

    return Pointwise(out, operands, write)


def write_pointwise(*calls: Call, inside: Container[Any] = ()) -> str:
    """Write one loop over the numbers of the results, which are of one shape.

    Args:
        calls: in their order.
        inside: memories that nothing reads outside the loop, which stay in registers.
    """
    parts = [read_pointwise(call) for call in calls]
    sizes = parts[0].out.sizes
    touched = dict.fromkeys(layout for part in parts for layout in (part.out, *part.operands))
    layouts = [layout for layout in touched if layout.root not in inside]
    written = {part.out for part in parts}
    layouts.sort(key=lambda layout: layout not in written)

    def body(places: Sequence[str]) -> str:
        numbers = {
            layout: f"{layout.root}[{place}]" for layout, place in zip(layouts, places, strict=True)
        }
        lines = []
        for part in parts:
            value = part.write([numbers.get(one, str(one.root)) for one in part.operands])
            if part.out not in numbers:
                numbers[part.out] = str(part.out.root)
                lines.append(f"{part.out.type} {part.out.root};")
            lines.append(f"{numbers[part.out]} = {value};")
        return "{ " + " ".join(lines) + " }"

    strides = [broadcast_strides(layout, sizes) for layout in layouts]
    return write_loops(sizes, [layout.offset for layout in layouts], strides, body)


def joins_loop(calls: Sequence[Call], call: Call) -> bool:
    """Tell whether an operation may be done in one loop with those before it."""
    if not all(one.name.rstrip("_") in (*POINTWISE, "clamp") for one in (*calls[:1], call)):
        return False
    if calls[0].out[0].sizes != call.out[0].sizes:
        return False
    written = [one.out[0] for one in calls]
    read = [layout for one in calls for layout in one.layouts]
    # what is written in the loop is read at the same place, and the other way about
    return all(
        layout == other
        for layouts, others in ((call.layouts, written), (call.out, read))
        for layout in layouts
        for other in others
        if layout.root == other.root
    )


def stands_apart(calls: Sequence[Call], call: Call) -> bool:
    """Tell whether an operation may as well be done before some others."""
    written = {layout.root for one in calls for layout in one.out}
    touched = {layout.root for one in calls for layout in one.layouts}
    own = {layout.root for layout in call.out}
    return not (own & touched or {layout.root for layout in call.layouts} & written)


def join_loops(calls: Sequence[Call]) -> list[list[Call]]:
    """Put operations together that are done in one loop."""
    groups: list[list[Call]] = []
    for call in calls:
        if groups and joins_loop(groups[-1], call):
            groups[-1].append(call)
        elif groups and stands_apart(groups[-1], call):
            groups.insert(-1, [call])
        else:
            groups.append([call])
    return groups


def _read_bounds(call: Call) -> tuple[Call, str]:
    """Return a clamp without the bounds that it lacks, and what it is then."""
    low, high = (*call.args[1:], None, None)[:2]
    low, high = call.options.get("min", low), call.options.get("max", high)
    if low is None:
        return call._replace(args=(call.args[0], high), options={}), POINTWISE["clamp_max"]
    if high is None:
        return call._replace(args=(call.args[0], low), options={}), POINTWISE["clamp_min"]
    inner = f"({POINTWISE['clamp_min']})"
    upper = POINTWISE["clamp_max"].replace("{1}", "{2}").replace("{0}", inner)
    return call._replace(args=(call.args[0], low, high), options={}), upper


def _typed(text: str, type_: str) -> str:
    for name in ("FABS", "RINT", "POW", "EXP", "LOG", "SQRT", "TANH"):
        text = text.replace(f"{name}(", name.lower() + ("f(" if type_ == "float" else "("))
    for name in ("GELU", "GELU_SLOPE", "SILU_SLOPE"):
        text = text.replace(f"{name}(", f"{name.lower()}_{type_}(")
    return text


def write_number(value: float, type_: str) -> str:
    """Write a number as C has it."""
    if math.isnan(value) or math.isinf(value):
        raise NotKnown(f"the number {value}")
    if type_ not in ("float", "double"):
        return repr(value)
    return f"(({type_}){float(value)!r})"


def write_fill(call: Call) -> str:
    """Write one number everywhere."""
    (out,) = call.out
    value = FILLED[call.name]
    return write_loops(
        out.sizes, [out.offset], [out.strides], lambda places: f"{out.root}[{places[0]}] = {value};"
    )


def write_product(call: Call) -> str:
    """Write A·B, or what is added to it and A·B."""
    *added, a, b = call.args[:3] if call.name.startswith("baddbmm") else call.args[:2]
    (out,) = call.out
    if any(value != 1 for value in (*call.args[3:], *call.options.values())):
        raise NotKnown("a product times a number")
    if not _is_row_major(out):
        raise NotKnown("a product in another layout")
    before = [write_pointwise(Call("clone", call.out, (c,), {}, ())) for c in added]
    (m, n), inner = out.sizes[-2:], a.sizes[-1]
    b_form, a_form = _blas_form(b), _blas_form(a)
    kind = "s" if out.type == "float" else "d"

    def body(places: Sequence[str]) -> str:
        to, left, right = (f"{t.root} + {at}" for t, at in zip((out, a, b), places, strict=True))
        sizes = f"{n}, {m}, {inner}, {b_form}, {right}, {a_form}, {left}"
        return f"{kind}product({sizes}, {int(bool(added))}, {to}, {max(1, n)});"

    several = [operand.strides[:-2] for operand in (out, a, b)]
    offsets = [operand.offset for operand in (out, a, b)]
    product = write_loops(out.sizes[:-2], offsets, several, body, side_by_side=False)
    return "\n".join([*before, product])


def _is_row_major(layout: Layout) -> bool:
    (rows, columns), (down, across) = layout.sizes[-2:], layout.strides[-2:]
    return (across == 1 or columns == 1) and (down == columns or rows == 1)


def _blas_form(layout: Layout) -> str:
    """Tell how BLAS is to read a matrix that it has by columns: as it is or transposed."""
    (rows, columns), (down, across) = layout.sizes[-2:], layout.strides[-2:]
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return f"'N', {max(down, columns, 1)}"
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return f"'T', {max(across, rows, 1)}"
    raise NotKnown("a matrix with steps in both directions")


def write_sum(call: Call) -> str:
    """Write sums along axes, means, or roots of sums of squares."""
    (out,), x = call.out, call.args[0]
    if not call.axes or out.dtype != x.dtype or out.type not in ("float", "double"):
        raise NotKnown("a sum over all members, or in another type")
    is_norm = call.name == "linalg_vector_norm"
    if is_norm and call.args[1] != 2:
        raise NotKnown("another norm")
    function, power = ("sum_squares", "{0} * {0}") if is_norm else ("sum", "{0}")
    kept = [d for d in range(len(x.sizes)) if d not in call.axes]
    # axes that are kept with length one are of no account
    steps = [s for n, s in zip(out.sizes, out.strides, strict=True) if n != 1]
    steps_of = dict(zip([d for d in kept if x.sizes[d] != 1], steps, strict=True))
    over = tuple(steps_of.get(d, 0) for d in range(len(x.sizes)))
    clear = write_loops(
        out.sizes, [out.offset], [out.strides], lambda at: f"{out.root}[{at[0]}] = 0;"
    )
    rows = [d for d in call.axes if x.strides[d] == 1 and x.sizes[d] > 1]
    if rows:  # numbers that lie side by side are added up in registers
        length = x.sizes[rows[0]]
        rest = [d for d in range(len(x.sizes)) if d != rows[0]]
        add = write_loops(
            [x.sizes[d] for d in rest],
            [out.offset, x.offset],
            [[over[d] for d in rest], [x.strides[d] for d in rest]],
            lambda at: (
                f"{out.root}[{at[0]}] += {function}_{out.type}({x.root} + {at[1]}, {length});"
            ),
            side_by_side=False,
        )
    else:
        add = write_loops(
            x.sizes,
            [out.offset, x.offset],
            [over, x.strides],
            lambda at: f"{out.root}[{at[0]}] += " + power.format(f"{x.root}[{at[1]}]") + ";",
            by=1,
        )
    count = math.prod(x.sizes[d] for d in call.axes)
    last = {"linalg_vector_norm": _typed("SQRT({0})", out.type), "mean": f"{{0}} / {count}"}
    if call.name not in last:
        return f"{clear}\n{add}"
    end = write_loops(
        out.sizes,
        [out.offset],
        [out.strides],
        lambda at: f"{out.root}[{at[0]}] = {last[call.name].format(f'{out.root}[{at[0]}]')};",
    )
    return f"{clear}\n{add}\n{end}"


def write_classes(call: Call) -> str:
    """Write an operation along the axis of the classes, by its function in ``operations.h``.

    That goes along the axis whose numbers lie side by side, too; all others are outside it.
    """
    name = call.name
    if name.startswith("nll"):
        weight, reduction = call.args[CLASSES[name][-1] + 1 :][:2]
        if weight is not None or reduction != 0:
            raise NotKnown("losses with weights, or their mean")
    written = call.out if name == "max" else call.out[:1]  # no sum of the classes' weights
    operands = [*written, *(call.args[i] for i in CLASSES[name])]
    (axis,) = call.axes
    sizes = max((operand.sizes for operand in operands), key=math.prod)
    strides = [_with_axis(operand, axis, len(sizes)) for operand in operands]
    others = [d for d in range(len(sizes)) if d != axis]
    others.sort(key=lambda d: (sizes[d] > 1, -strides[-1][d]))
    *rest, inner = others

    def body(places: Sequence[str]) -> str:
        given = ", ".join(
            f"{operand.root} + {place}, {own[axis]}, {own[inner]}"
            for operand, place, own in zip(operands, places, strides, strict=True)
        )
        return f"{name.lstrip('_')}_{call.out[0].type}({sizes[axis]}, {sizes[inner]}, {given});"

    return write_loops(
        [sizes[d] for d in rest],
        [operand.offset for operand in operands],
        [[own[d] for d in rest] for own in strides],
        body,
        side_by_side=False,
    )


def _with_axis(operand: Layout, axis: int, count: int) -> tuple[int, ...]:
    """Return strides along all axes, where an operand may lack that of the classes."""
    if len(operand.strides) == count:
        return operand.strides
    return (*operand.strides[:axis], 0, *operand.strides[axis:])


def write_concatenation(call: Call) -> str:
    """Write one tensor after another."""
    (out,), parts = call.out, call.args[0]
    (axis,) = call.axes
    lines, start = [], 0
    for part in parts:
        if len(part.sizes) < len(out.sizes):  # one that is put beside others of its shape
            sizes = (*part.sizes[:axis], 1, *part.sizes[axis:])
            part = part._replace(sizes=sizes, strides=_with_axis(part, axis, len(sizes)))
        sizes = tuple(part.sizes[d] if d == axis else n for d, n in enumerate(out.sizes))
        there = out._replace(offset=out.offset + start * out.strides[axis], sizes=sizes)
        lines.append(write_pointwise(Call("clone", (there,), (part,), {}, ())))
        start += part.sizes[axis]
    return "\n".join(lines)


def write_flip(call: Call) -> str:
    """Write a tensor backwards along some axes."""
    x = call.args[0]
    offset = x.offset + sum((x.sizes[d] - 1) * x.strides[d] for d in call.axes)
    strides = tuple(-s if d in call.axes else s for d, s in enumerate(x.strides))
    turned = x._replace(offset=offset, strides=strides)
    return write_pointwise(Call("clone", call.out, (turned,), {}, ()))


CLASSES = {
    "_log_softmax": (0,),
    "_log_softmax_backward_data": (0, 1),
    "nll_loss2d_forward": (0, 1),
    "nll_loss2d_backward": (0, 2),
    "max": (0,),
}
"""Which arguments an operation along the classes reads."""

Writer = Callable[[Call], str]
WRITERS: dict[str, Writer] = {
    **dict.fromkeys(POINTWISE, write_pointwise),
    **dict.fromkeys((f"{name}_" for name in (*POINTWISE, "clamp")), write_pointwise),
    "clamp": write_pointwise,
    **dict.fromkeys(FILLED, write_fill),
    "bmm": write_product,
    "baddbmm": write_product,
    "sum": write_sum,
    "mean": write_sum,
    "linalg_vector_norm": write_sum,
    **dict.fromkeys(CLASSES, write_classes),
    "cat": write_concatenation,
    "stack": write_concatenation,
    "flip": write_flip,
}
"""By the name of an operation."""

AXES = {
    "sum": 1,
    "mean": 1,
    "linalg_vector_norm": 2,
    "_log_softmax": 1,
    "_log_softmax_backward_data": 2,
} | {**dict.fromkeys(("max", "cat", "stack", "flip"), 1)}
"""Which of an operation's arguments are the axes it goes along."""
