"""Several grids, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from truerisk.config.compose import expand_short_forms
from truerisk.sweeps.sweeper import Batches

if TYPE_CHECKING:
    from truerisk.sweeps.study_folder import StudyFolder
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from truerisk.sweeps.sweeper import CellOverrides
from truerisk.sweeps.sweeper.axis import list_values


class Grids:
    """The points of each grid in turn, each combined with the axes that all share.

    Args:
        grids: mappings of axes: ``[{optimizer: sgd, optimizer.lr: "0.1,1"}, {optimizer: adam}]``.
        params: axes that all grids share, as those of the command line are.
    """

    def __init__(
        self, grids: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None
    ) -> None:
        self.grids, self.params = grids, params or {}

    def batches(self, overrides: Sequence[Override], study: StudyFolder) -> Batches:
        """All points at once."""
        points = []
        for grid in self.grids or [{}]:
            own = expand_short_forms([f"{key}={value}" for key, value in grid.items()])
            points += grid_points([*study.compose.loader.parsed(own), *overrides])
        yield points


class GridSweeper:
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
        points = grid_points(overrides)
        size = self.size if self.size and self.size > 0 else len(points)
        for start in range(0, len(points), size):
            yield points[start : start + size]


def grid_points(overrides: Sequence[Override]) -> list[CellOverrides]:
    """The points of a grid.

    Raises:
        ConfigError: an axis has no values to go through, such as ``interval(0,1)``.
    """
    for override in overrides:
        if override.is_sweep_override():
            list_values(override)
    return BasicSweeper.split_arguments(list(overrides), None)[0]
