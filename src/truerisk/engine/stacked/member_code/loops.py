"""Loops in C over numbers that lie at strides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from truerisk.engine.stacked.member_code.layout import Layout

Body = Callable[[Sequence[str]], str]
"""Gives a statement, of the numbers' places in each operand."""


def broadcast_strides(layout: Layout, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the strides at which an operand is read along the axes of the result."""
    missing = len(sizes) - len(layout.sizes)
    own = zip(layout.sizes, layout.strides, strict=True)
    return (0,) * missing + tuple(0 if size == 1 else stride for size, stride in own)


def write_loops(
    sizes: Sequence[int],
    offsets: Sequence[int],
    strides: Sequence[Sequence[int]],
    body: Body,
    by: int = 0,
    side_by_side: bool = True,
) -> str:
    """Write the fewest loops that go through all operands.

    Args:
        sizes: of the axes.
        offsets: of the operands, in numbers; the first is written to.
        strides: an operand, along each axis.
        body: the statement inside.
        by: the operand in whose order it is gone through them.
        side_by_side: whether the innermost statements may be done at once.
    """
    axes = [(size, *steps) for size, *steps in zip(sizes, *strides, strict=True) if size != 1]
    axes.sort(key=lambda axis: (-abs(axis[1 + by]), *(-abs(step) for step in axis[1:])))
    merged: list[tuple[int, ...]] = []
    for size, *steps in axes:
        if merged and all(a == b * size for a, b in zip(merged[-1][1:], steps, strict=True)):
            merged[-1] = (merged[-1][0] * size, *steps)
        else:
            merged.append((size, *steps))
    places = [
        " + ".join(
            [str(offset)] + [f"i{i} * {axis[1 + j]}" for i, axis in enumerate(merged) if axis[1 + j]]
        )
        for j, offset in enumerate(offsets)
    ]
    heads = [f"for (int i{i} = 0; i{i} < {axis[0]}; i{i}++)" for i, axis in enumerate(merged)]
    # what is read and what is written are never the same numbers at different places; but several
    # may be added up at one place
    if merged and merged[-1][1] and side_by_side:
        heads.insert(len(heads) - 1, "\n#pragma GCC ivdep\n")
    return " ".join([*heads, body(places)])
