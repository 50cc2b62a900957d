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
    """An option of ``hydra/sweeper``; one of your own needs no base class.

    Its constructor's arguments are the keys of its YAML. One that sets ``adaptive = True`` chooses
    points by how earlier ones ended, so that `truerisk plan` cannot know them.
    """

    params: Any
    """Axes set in YAML, beside those of the command line."""

    def propose_batches(self, overrides: Sequence[Any], study: StudyFolder) -> Batches:
        """Propose points, batch after batch; each is answered by how its points ended.

        Args:
            overrides: parsed by Hydra: those of ``params``, then the command line's.
            study: the folder of the cells, and what composes them.
        """
