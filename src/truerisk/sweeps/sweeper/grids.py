"""Several grids, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from truerisk.config.overrides import normalize
from truerisk.sweeps.sweeper import Batches
from truerisk.sweeps.sweeper.grid import product

if TYPE_CHECKING:
    from truerisk.sweeps.study import Study


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

    def batches(self, overrides: Sequence[Override], study: Study) -> Batches:
        """All points at once."""
        points = []
        for grid in self.grids or [{}]:
            own = normalize([f"{key}={value}" for key, value in grid.items()])
            points += product([*study.compose.loader.parsed(own), *overrides])
        yield points
