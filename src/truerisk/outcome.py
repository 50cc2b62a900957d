"""How a run ended, in the one number that sweepers want."""

from __future__ import annotations

EXIT = {"finished": 0, "elsewhere": 0, "failed": 1, "refused": 2, "diverged": 3}
INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143}


class Outcome(float):
    """The best validation risk (NaN where there is none), as sweepers want it, and how it came."""

    def __new__(cls, value: float, status: str, reason: str = "", new: bool = True) -> Outcome:
        """A number that remembers a run's status, the reason for it, and whether it ran just now.

        The status is that of a run folder, or ``refused`` where the run could not begin, or
        ``elsewhere`` where another process is at it.
        """
        made = super().__new__(cls, value)
        made.status, made.reason, made.new = status, reason, new
        return made

    status: str
    reason: str
    new: bool

    def __getnewargs__(self) -> tuple[float, str, str, bool]:  # type: ignore[override]
        return float(self), self.status, self.reason, self.new

    @property
    def code(self) -> int:
        """The exit code of a run that ended so."""
        if self.status == "interrupted":
            return next((c for name, c in INTERRUPTED.items() if name in self.reason), 130)
        return EXIT.get(self.status, 1)
