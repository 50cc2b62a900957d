"""Axes that go hand in hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from truerisk.core.errors import ConfigError
from truerisk.sweeps.sweeper import Batches
from truerisk.sweeps.sweeper.axis import list_values, split_axes


class Zipped:
    """``a=1,2,3 b=4,5,6`` are the three points (1, 4), (2, 5) and (3, 6).

    Args:
        params: axes, as on the command line.
        crossed: axes that are not zipped, but combined with every point.

    Raises:
        ConfigError: (from ``propose_batches``) the zipped axes differ in length.
    """

    def __init__(
        self, params: Mapping[str, Any] | None = None, crossed: Sequence[str] = ()
    ) -> None:
        self.params, self.crossed = params or {}, crossed

    def propose_batches(self, overrides: Sequence[Override], study: Any) -> Batches:
        """Propose all points at once."""
        axes = split_axes(overrides, self.crossed)
        columns = {key: list_values(override) for key, override in axes.searched.items()}
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{key} has {n}" for key, n in lengths.items())
            raise ConfigError(f"hydra/sweeper=list pairs values, so lengths must agree: {said}")
        # without an axis there is one point, of the crossed axes alone
        rows = zip(*columns.values(), strict=True) if columns else [()]
        points = []
        for row in rows:
            points += axes.list_points(dict(zip(columns, row, strict=True)))
        yield points
