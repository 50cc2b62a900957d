"""What studies show: tables, statistics, figures and one page, from run folders alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.reports.collect import collect
    from truerisk.reports.report import write_report
    from truerisk.reports.study import Study

__all__ = ["Study", "collect", "write_report"]

_HOME = {"Study": "study", "collect": "collect", "write_report": "report"}


def __getattr__(name: str) -> Any:
    """Import a piece when it is asked for: scipy and matplotlib take a second."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
