"""How a run ended: the risk it reached, or what it followed, its status and its exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from truerisk.core.stop import Stop

EXIT = {"finished": 0, "elsewhere": 0, "failed": 1, "refused": 2, "diverged": 3}
INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run, small enough to be sent between processes.

    Args:
        value: the best validation risk, which sweepers minimise, or the best of what ``monitor``
            names, turned so that less is better; nan where there is none.
        status: as in the run folder's ``status.json``; or ``refused`` where the run could not
            begin, ``missing`` where it has not, ``elsewhere`` where another process trains it.
        reason: why it ended so; empty where it finished as planned.
        new: whether it ran just now, rather than in an earlier command.
        stop: what ended it before its time, for programs.
        folder: of the run, where a sweep knows it.
        lost: whether its process was killed or vanished, which says nothing of the run itself.
        fault: what its own process has printed of an error, for one that prints elsewhere.
        damaged: whether a run that is done has lost something for good.
    """

    value: float
    status: str
    reason: str = ""
    new: bool = True
    stop: Stop | None = None
    folder: Path | None = None
    lost: bool = False
    fault: str = ""
    damaged: bool = False

    def __float__(self) -> float:
        # sweepers that are Hydra plugins take ``float(job.return_value)`` as the objective
        return self.value

    @property
    def code(self) -> int:
        """The exit code of a command whose only run ended so."""
        if self.status == "interrupted":
            return next((c for name, c in INTERRUPTED.items() if name in self.reason), 130)
        return EXIT.get(self.status, 1)
