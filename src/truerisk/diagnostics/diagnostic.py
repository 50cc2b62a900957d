"""The base of all diagnostics: when they look, and what they may do then."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

Values = Mapping[str, float]
"""Numbers by ``what``, or by ``what/<layer>``."""


class Diagnostic:
    """A look at a run at some of its steps, which leaves it as it is, to the last bit.

    | hook     | called                                                                           |
    |----------|----------------------------------------------------------------------------------|
    | `refuse` | once, before anything is trained                                                 |
    | `start`  | once, at the initial weights, in a run that is resumed too                       |
    | `before` | right before the optimizer moves the weights, in a step that is looked at after  |
    | `look`   | after a step that is due, and at the end; returns numbers by name                |
    | `finish` | once, after the last look of a run that has come to its end; numbers again       |
    | `plot`   | once the run has ended                                                           |

    Numbers are logged as ``<name>/<what>``; a layer's as ``<name>/<what>/<layer>``. The figure is
    drawn from what was logged alone. Whatever happens inside a hook with the modes of the layers,
    buffers, gradients, autocast and the global random generators is undone after it.

    Steps are counted from 1; step 0 stands for the initial weights. Due are step ``first``, every
    multiple of ``every`` after it, and the last (where a run stops early, only for those that do
    not need a step). What is kept from one look to the next must not change any number, as it is
    not there after a restart.

    Args:
        every: ``{steps: n}`` or ``{epochs: n}`` between two looks; steps win where both are set,
            and where neither is, there are only the first look and the last.

    Raises:
        ConfigError: ``every`` has another unit, or a number below 1.

    >>> flow = Diagnostic({"steps": None, "epochs": 2})
    >>> flow.plan(steps_per_epoch=5, horizon=23)
    >>> [step for step in range(24) if flow.due(step)], flow.until(12)
    ([0, 10, 20, 23], 8)
    """

    name = "diagnostic"
    """The name in the configuration."""
    cost: ClassVar[str] = "cheap"
    """``cheap``, ``moderate`` or ``heavy``."""
    first: float = 0
    """The first step looked at: 0, 1 for what needs a step, ``math.inf`` for none but the last."""
    reads_gradients: ClassVar[bool] = False
    """Whether it looks at the gradient that a step leaves in ``.grad``."""
    on_functions: ClassVar[bool] = False
    """Whether it makes sense where there is no data, for a test function."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # by the class, so that a diagnostic of one's own logs under its name without a word
        cls.name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, every: Mapping[str, Any] | None = None) -> None:
        self.every = {"epochs": 1} if every is None else dict(every)
        self.interval = self.horizon = math.inf
        self._warned = False
        for unit, number in self.every.items():
            if unit not in ("steps", "epochs"):
                hint = suggest(str(unit), ("steps", "epochs"))
                raise ConfigError(f"diagnostics.{self.name}.every.{unit}: {hint}")
            if number is not None:
                check_int(f"diagnostics.{self.name}.every.{unit}", number)

    # --- when -----------------------------------------------------------------------------------

    def plan(self, steps_per_epoch: int, horizon: int) -> None:
        """Take note of how long an epoch and the run are.

        Args:
            steps_per_epoch: optimizer steps of an epoch.
            horizon: optimizer steps of the run.
        """
        steps, epochs = self.every.get("steps"), self.every.get("epochs")
        self.interval = steps or (epochs or math.inf) * steps_per_epoch
        self.horizon = horizon

    def due(self, step: int) -> bool:
        """Tell whether to look after a step."""
        return step in (self.first, self.horizon) or (
            step >= self.first and step % self.interval == 0
        )

    def until(self, step: int) -> float:
        """Count the steps from one step to the next look; infinite where none is left."""
        rest = self.interval - step % self.interval
        return min(rest, self.first - step) if step < self.first < math.inf else rest

    # --- the hooks ------------------------------------------------------------------------------

    def refuse(self, recipe: Recipe) -> str | None:
        """Say why this cannot look at such a run; None if it can."""
        return None

    def start(self, model: nn.Module) -> None:
        """Take note of the initial weights."""

    def before(self, snapshot: Snapshot) -> None:
        """Take note of the weights that a step is about to change."""

    def look(self, snapshot: Snapshot) -> Values:
        """Measure, and return numbers by name."""
        raise NotImplementedError

    def finish(self, snapshot: Snapshot) -> Values:
        """Measure what only the end of a run shows, and return numbers by name."""
        return {}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw what was logged.

        Args:
            figure: an empty one.
            table: a row a step that was looked at, a column a name, without the diagnostic's.
        """
        raise NotImplementedError

    # --- what all of them share -----------------------------------------------------------------

    def warn(self, text: str) -> None:
        """Print what is wrong with the run, the first time that it is."""
        from truerisk.run import rank

        if not self._warned and rank() == 0:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)
        self._warned = True

    def tell(self, text: str) -> None:
        """Print a line."""
        from truerisk.run import rank

        if rank() == 0:
            print(f"{self.name}: {text}", flush=True)

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the figure of a run and save it as a PNG.

        Args:
            history: what the run logged, with the columns ``step``, ``name`` and ``value``.
            path: the file that is written.
            title: a line above the figure.

        Returns:
            The path; None if this diagnostic logged nothing.
        """
        from truerisk.diagnostics.history_plots import pivot_history
        from truerisk.show.panel import lay_out, new_figure, save_png

        table = pivot_history(history, self.name)
        if table.empty:
            return None
        figure = new_figure(title, layout="constrained")
        self.plot(figure, table)
        lay_out(figure)
        return save_png(figure, path)
