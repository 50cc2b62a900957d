"""truerisk: which training recipe lowers the risk on unseen data, and how sure one can be of it."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["RunResult", "build_module", "load_run", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must answer before torch is loaded."""
    if name in ("build_module", "train"):
        from truerisk import fit

        return getattr(fit, name)
    if name in ("RunResult", "load_run"):
        from truerisk import result

        return getattr(result, name)
    raise AttributeError(f"module 'truerisk' has no attribute {name!r}")
