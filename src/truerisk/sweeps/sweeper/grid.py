"""Every combination of the values of all axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from truerisk.sweeps.sweeper import Batches, Point
from truerisk.sweeps.sweeper.axis import values


class Grid:
    """Hydra's own sweeper: ``a=1,2 b=range(3)`` are six points; the last axis runs fastest.

    Args:
        params: axes, as on the command line: ``{optimizer: "sgd,adam", seed: "range(5)"}``.
        max_batch_size: launch at most so many points at once.
    """

    def __init__(
        self, params: Mapping[str, Any] | None = None, max_batch_size: int | None = None
    ) -> None:
        self.params, self.size = params or {}, max_batch_size

    def batches(self, overrides: Sequence[Override], study: Any) -> Batches:
        """All points, at once unless they are to be fewer."""
        points = product(overrides)
        size = self.size if self.size and self.size > 0 else len(points)
        for start in range(0, len(points), size):
            yield points[start : start + size]


def product(overrides: Sequence[Override]) -> list[Point]:
    """The points of a grid.

    Raises:
        ConfigError: an axis has no values to go through, such as ``interval(0,1)``.
    """
    for override in overrides:
        if override.is_sweep_override():
            values(override)
    return BasicSweeper.split_arguments(list(overrides), None)[0]
