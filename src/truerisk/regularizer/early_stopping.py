"""Early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.stop import RunInProgress, Stop, StopRule
from truerisk.regularizer.base import Regularizer


class EarlyStopping(Regularizer):
    """Ends the run once the validation risk has not fallen for ``patience`` measurements in a row.

    A metric of which higher is better is looked at upside down. A fall counts if it exceeds
    ``min_delta``. The weights of the best measurement are kept in any case, so the patience costs
    time only.

    Source: Prechelt, "Early Stopping — But When?", in Neural Networks: Tricks of the Trade (1998),
    criterion UP.

    Args:
        patience: measurements without a fall; one an epoch where ``risk.every`` is 1.
        min_delta: least fall that counts.
        monitor: name of the measured value; lower is better, unless a metric says otherwise.
    """

    needs_validation = True

    stacks = ("patience", "min_delta")

    def __init__(self, patience: int, min_delta: float = 0.0, monitor: str = "risk/val") -> None:
        self.patience = check_int("regularizer.early_stopping.patience", patience)
        self.min_delta = check_float("regularizer.early_stopping.min_delta", min_delta)
        self.monitor = monitor

    def stop_rules(self) -> list[StopRule]:
        """Return the rule that counts measurements."""
        return [Patience(self.monitor, self.patience, self.min_delta)]


class Patience(StopRule):
    """End a run once a measured value has not fallen for some measurements in a row.

    Args:
        monitor: the value's name.
        patience: measurements without a fall.
        min_delta: the least fall that counts.
    """

    OF_STEPS = ("batch/loss", "grad_norm")
    """What the steps of an epoch give, so that it is not there before the first."""

    def __init__(self, monitor: str, patience: int, min_delta: float) -> None:
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.best, self.waited = math.inf, 0
        options = {"monitor": monitor, "mode": "min"}
        self.key = f"Patience{options}"

    def check(self, values: Mapping[str, float]) -> None:
        """Look for the monitored name among what is measured.

        Raises:
            ConfigError: it is not there.
        """
        known = [*values, *self.OF_STEPS]
        if self.monitor not in known:
            raise ConfigError(
                f"regularizer.early_stopping.monitor={self.monitor} is not measured; "
                f"{suggest(self.monitor, known)}"
            )

    def decide(self, run: RunInProgress, values: Mapping[str, float]) -> Stop | None:
        """Count measurements without a fall."""
        value = run.recipe.orient(self.monitor, values[self.monitor])
        if value + self.min_delta < self.best:
            self.best, self.waited = value, 0
            return None
        self.waited += 1
        # Where the value is no longer a number nothing will fall any more.
        if self.waited < self.patience and math.isfinite(value):
            return None
        return Stop("patience", run.state.step, {})

    def state_dict(self) -> dict[str, Any]:
        """Return the lowest value and the measurements since."""
        return {"wait_count": self.waited, "best_score": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state_dict``, or Lightning's callback of the same state, left off."""
        self.waited, self.best = state["wait_count"], float(state["best_score"])
