"""What a sweep asks for: points of a grid, of a list, drawn at random or by a tuner."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from truerisk.outcome import Outcome

if TYPE_CHECKING:
    from truerisk.sweeps.study_folder import StudyFolder

CellOverrides = list[str]
"""The overrides of one cell."""
Batches = Generator[list[CellOverrides], list[Outcome], None]
"""Points that may be trained together; what is sent back is how they ended, in their order."""


class Sweeper(Protocol):
    """An option of ``hydra/sweeper``."""

    params: Any
    """Axes set in YAML, beside those of the command line."""

    def batches(self, overrides: Sequence[Any], study: StudyFolder) -> Batches:
        """Points for the parsed overrides, ``params`` and the command line's, in that order."""
