"""What a person sees of a run: a progress line, a table of risks, a figure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.show.console import risk_table
    from truerisk.show.figure import risk_figure
    from truerisk.show.progress_line import Progress

__all__ = ["Progress", "risk_figure", "risk_table"]

_MODULES = {"Progress": "progress_line", "risk_figure": "figure", "risk_table": "console"}


def __getattr__(name: str) -> Any:
    """Import a view when it is asked for: the progress bar needs Lightning."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
