"""truerisk: which training recipe lowers the risk on unseen data, and how sure one can be of it.

The names a user needs, each imported when it is asked for: the command line must answer before
torch is loaded.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from truerisk import engine

# before the first product: else MKL's last digits depend on where in memory a result lies, and so
# a run's on which others it is trained with
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.2.0"

_HOMES = {
    # runs
    "train": "fit",
    "build_module": "fit",
    "load_run": "result",
    "RunResult": "result",
    "Predictor": "predictor",
    "RunFolder": "run",
    "Measured": "risk.measured",
    "Stop": "core.stop",
    "read_history": "logger",
    # configurations, and what is built of them
    "compose": "config.compose",
    "Recipe": "recipe",
    "ConfigError": "core.errors",
    # the parts, and what one's own derive from
    "DataModule": "data",
    "Samples": "data",
    "Population": "data",
    "Batch": "core.batch",
    "Task": "task",
    "Regularizer": "regularizer",
    "StopRule": "core.stop",
    "Needs": "optimizer",
    "Schedule": "scheduler",
    "Diagnostic": "diagnostics",
    # the objective and its derivatives
    "Objective": "objective",
    "LocalObjective": "objective",
    "HessianOperator": "objective",
    "GaussNewtonOperator": "objective",
    "gradient": "objective",
    "extreme_eigenvalues": "objective",
    "spectral_density": "objective",
    "hutchinson_trace": "objective",
    "taylor_polynomial": "objective",
    # the loop
    "TrainingLoop": "engine.loop",
    "Observer": "engine.loop",
    "ModelBackend": "engine.lightning",
    "RiskModule": "engine.risk_module",
    # many runs
    "sweep": "python_sweep",
    "SweepResult": "python_sweep",
    "StudyResults": "reports",
    "collect_runs": "reports",
    "write_report": "reports",
    # published claims
    "claim": "verdicts",
    "exact_finding": "verdicts",
    "mean_finding": "verdicts",
}
"""The module below this one that each name is imported from; none bears a module's own name."""
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'truerisk' has no attribute {name!r}")
    value = getattr(import_module(f"truerisk.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _restore_recipe(*given: Any) -> Any:
    from truerisk.assemble import restore_recipe

    return restore_recipe(*given)


# here, as whoever imports RiskModule, from wherever, has imported the package first
engine.restore_recipe = _restore_recipe


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
