"""What a person sees of a run: a progress line, a table of risks, a figure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.show.figure import risk_figure
    from truerisk.show.progress import Progress
    from truerisk.show.table import risk_table

__all__ = ["Progress", "risk_figure", "risk_table"]

_HOME = {"Progress": "progress", "risk_figure": "figure", "risk_table": "table"}


def __getattr__(name: str) -> Any:
    """Import a view when it is asked for: the progress bar needs Lightning."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
