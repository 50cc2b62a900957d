"""Every combination of values: one grid, or several one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from truerisk.config.compose import expand_short_forms
from truerisk.core.errors import ConfigError
from truerisk.sweeps.sweeper import Batches, CellOverrides
from truerisk.sweeps.sweeper.axis import list_values, split_axes, write_axes

if TYPE_CHECKING:
    from truerisk.sweeps.study_folder import StudyFolder


class GridSweeper:
    """Takes the place of Hydra's own: ``a=1,2 b=range(3)`` are six points, the last axis fastest.

    Args:
        params: axes, as on the command line: ``{optimizer: "sgd,adam", seed: "range(5)"}``.
        max_batch_size: launch at most so many points at once.
    """

    def __init__(
        self, params: Mapping[str, Any] | None = None, max_batch_size: int | None = None
    ) -> None:
        self.params, self.size = params or {}, max_batch_size

    def propose_batches(self, overrides: Sequence[Override], study: Any) -> Batches:
        """Propose all points, at once unless they are to be fewer."""
        points = list_grid(overrides)
        size = len(points)
        if self.size and self.size > 0:
            size = self.size
        for start in range(0, len(points), size):
            yield points[start : start + size]


class Grids:
    """The points of each grid in turn, each combined with the axes that all share.

    Args:
        grids: mappings of axes: ``[{optimizer: sgd, optimizer.lr: "0.1,1"}, {optimizer: adam}]``.
        params: axes that all grids share, as those of the command line are.

    Raises:
        ConfigError: there is no grid, or one is no mapping.
    """

    def __init__(
        self, grids: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None
    ) -> None:
        example = 'as in [{optimizer: sgd, optimizer.lr: "0.1,1"}, {optimizer: adam}]'
        if not grids:
            raise ConfigError(f"hydra.sweeper.grids is empty: give mappings of axes, {example}")
        if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
            raise ConfigError(f"hydra.sweeper.grids must be a list of mappings, {example}")
        self.grids, self.params = grids, params or {}

    def propose_batches(self, overrides: Sequence[Override], study: StudyFolder) -> Batches:
        """Propose all points at once."""
        points = []
        for grid in self.grids:
            texts = expand_short_forms(write_axes(grid))
            points += list_grid([*study.compose.loader.read_overrides(texts), *overrides])
        yield points


def list_grid(overrides: Sequence[Override]) -> list[CellOverrides]:
    """List the points of a grid, the last axis fastest.

    Args:
        overrides: parsed; a later one of the same key takes an earlier one's place.

    Raises:
        ConfigError: an axis has no values to go through, such as ``interval(0,1)``.
    """
    axes = split_axes(overrides, crossed=())
    values = {key: list_values(override) for key, override in axes.searched.items()}
    return axes._replace(crossed=values).list_points({})
