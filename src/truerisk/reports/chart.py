"""What a chart shows, apart from how it is drawn: the page and the image files share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Line:
    """Points joined by a line, with a band where there are intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    n: Sequence[int] = ()
    """runs behind each point"""
    dashed: bool = False
    steps: bool = False
    """constant up to the next point"""
    dots: bool = False
    """points that no line joins"""


@dataclass(frozen=True)
class Chart:
    """Lines over the same axes."""

    key: str
    """name of its files"""
    title: str
    x: str
    y: str
    lines: list[Line]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Heat:
    """A number at each pair of two others."""

    key: str
    title: str
    x: str
    y: str
    xs: Sequence[float]
    ys: Sequence[float]
    value: list[list[float]]
    """[y][x]; nan where there is none"""
    note: str = ""


@dataclass
class Charts:
    """The charts of one problem."""

    lines: list[Chart] = field(default_factory=list)
    heats: list[Heat] = field(default_factory=list)


def spans(values: Sequence[Sequence[float]], factor: float = 20.0) -> bool:
    """Whether the values are positive and span more than a factor, so that a log scale helps."""
    seen = np.array([v for row in values for v in row if np.isfinite(v)])
    return bool(len(seen)) and bool(seen.min() > 0) and bool(seen.max() > factor * seen.min())
