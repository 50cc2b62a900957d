"""What studies show: tables, statistics, figures and one page, from run folders alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.reports.learning_problem import StudyResults
    from truerisk.reports.run_records import collect_runs
    from truerisk.reports.study_report import write_report

__all__ = ["StudyResults", "collect_runs", "write_report"]

_MODULES = {
    "StudyResults": "learning_problem",
    "collect_runs": "run_records",
    "write_report": "study_report",
}


def __getattr__(name: str) -> Any:
    """Import a piece when it is asked for: scipy and matplotlib take a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
