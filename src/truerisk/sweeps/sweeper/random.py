"""Points drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from hydra.core.override_parser.types import Override

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.sweeps.sweeper import Batches
from truerisk.sweeps.sweeper.axis import draw_value, split_axes


class Random:
    """``count`` points: each axis is an interval, a choice, or a distribution of scipy.stats.

    Each axis has a stream of draws of its own, so that a larger ``count`` adds points to those of
    a smaller one, and another axis changes none of the numbers.

    Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization" (JMLR 2012).

    Args:
        params: axes, as on the command line.
        count: points.
        seed: of the draws.
        crossed: axes that are not drawn, but combined with every point.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        count: int = 20,
        seed: int = 0,
        crossed: Sequence[str] = ("seed",),
    ) -> None:
        self.params, self.crossed = params or {}, crossed
        self.seed = check_int("hydra.sweeper.seed", seed, 0)
        self.count = check_int("hydra.sweeper.count", count)

    def propose_batches(self, overrides: Sequence[Override], study: Any) -> Batches:
        """Propose all points at once.

        Raises:
            ConfigError: there is no axis to draw from.
        """
        from numpy.random import default_rng

        axes = split_axes(overrides, self.crossed)
        if not axes.searched:
            raise ConfigError(
                "hydra/sweeper=random has nothing to draw: give an axis, as in "
                "'optimizer.lr=tag(log,interval(1e-4,1))'"
            )
        # crc32, since Python's own hash of a text differs from process to process
        streams = {k: default_rng([self.seed, crc32(k.encode())]) for k in axes.searched}
        points = []
        for _ in range(self.count):
            values = {key: draw_value(o, streams[key]) for key, o in axes.searched.items()}
            points += axes.list_points(values)
        yield points
