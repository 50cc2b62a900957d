"""The range of learning rates at which a run would learn."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.snapshot import RunView
from truerisk.objective import Objective
from truerisk.show.style import format_significant

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.core.batch import Batch
    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

DIVERGED = 4.0
"""The loss has diverged where it is this many times its lowest value."""
MARGIN = 10.0
"""How far below the rate at which the loss diverges a rate is safe."""


class LrRange(Diagnostic):
    """A learning-rate range test, before the first step.

    A copy of the initial model is trained on the mini-batches that the run begins with, while the
    learning rate grows exponentially from ``low`` to ``high``; the scheduler is left out.
    ``loss/<rate>`` is the loss of the batch that follows a step at that rate, as an exponential
    moving average without its bias towards 0. ``steepest`` is the rate around which it falls most,
    over a tenth of the rates either way, ``diverged`` the first at which it is 4 times its lowest
    value, where the test ends, and ``suggested`` the smaller one of ``steepest`` and a tenth of
    ``diverged``, which is printed. The copy is trained in the precision of the weights.

    With rules for parameter groups, rates are those of ``optimizer.lr``, and the others' keep their
    ratios to it.

    Args:
        low: the first rate.
        high: the last one.
        steps: from the first to the last, as long as the loss does not diverge.
        smoothing: the weight of the past in the average, in [0, 1).

    Raises:
        ConfigError: a number is out of its range, or ``high`` is not above ``low``.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), §3.3.
    """

    cost = "moderate"

    def __init__(
        self, low: float = 1e-6, high: float = 10.0, steps: int = 200, smoothing: float = 0.8
    ) -> None:
        super().__init__({})
        self.low = check_float("diagnostics.lr_range.low", low, 0, above=True)
        self.high = check_float("diagnostics.lr_range.high", high, 0, above=True)
        self.steps = check_int("diagnostics.lr_range.steps", steps, 3)
        self.smoothing = check_float("diagnostics.lr_range.smoothing", smoothing, 0, 0.999)
        if high <= low:
            raise ConfigError(f"diagnostics.lr_range.high is {high}: give a rate above low={low}")

    def due(self, step: int) -> bool:
        """Tell whether to look after a step: at the initial weights alone."""
        return step == 0

    def until(self, step: int) -> float:
        """Count the steps to the next look: there is none."""
        return math.inf

    def refuse(self, recipe: Recipe) -> str | None:
        """Refuse optimizers whose step takes more than a gradient."""
        needs = recipe.needs
        if needs.closure or needs.curvature or needs.create_graph or not needs.gradient:
            return (
                "it needs an optimizer whose step takes the gradient of a mini-batch and nothing "
                "else: leave it out, or take another one"
            )
        return None

    def look(self, snapshot: Snapshot) -> Values:
        """Train the copy, and read the rates off its losses."""
        if snapshot.step:  # the last look of a run is asked for whatever is due
            return {}
        rates = np.geomspace(self.low, self.high, self.steps)
        batch_losses = RangeTest(snapshot.run, snapshot.frozen).train(rates)
        losses = smooth_losses(batch_losses, self.smoothing)
        values = {f"loss/{rate:.6g}": loss for rate, loss in zip(rates, losses, strict=False)}
        choice = choose_rate(rates[: len(batch_losses)], losses)
        self.tell(describe_choice(choice))
        return values | choice

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the loss over the rate, with the suggested rate."""
        from truerisk.diagnostics.history_plots import select_columns
        from truerisk.show.panel import frame_axes, set_plain_ticks
        from truerisk.show.style import BLUE, FAINT, INK, RUST, SIZE

        row = table.iloc[0]
        losses = {float(k): v.iloc[0] for k, v in select_columns(table, "loss").items()}
        axes = figure.subplots()
        frame_axes(axes, "loss of a mini-batch, smoothed")
        if not losses:  # the first step already left the finite numbers
            return
        axes.plot(list(losses), list(losses.values()), color=BLUE, linewidth=2.6)
        axes.set_xscale("log")
        # beyond twice its first value, the curve would leave the descent a thin strip
        bottom, top = min(losses.values()), max(2 * next(iter(losses.values())), axes.get_ylim()[0])
        axes.set_ylim(bottom - 0.05 * (top - bottom), min(top, axes.get_ylim()[1]))
        for name, color, dashes in (("suggested", RUST, "--"), ("diverged", FAINT, ":")):
            if name in row:
                axes.axvline(row[name], color=color, linestyle=dashes, linewidth=2)
        set_plain_ticks(axes)
        label = "learning rate"
        if "suggested" in row:
            label += f" (dashed: {format_significant(row['suggested'], 3)})"
        axes.set_xlabel(label, fontsize=SIZE, color=INK)


class RangeTest:
    """Steps at growing rates from the weights of a run, on copies of all that they change.

    Args:
        run: at its initial weights; it stays as it is.
        frozen: modules that are in eval mode while the run trains, by name.
    """

    def __init__(self, run: RunView, frozen: Collection[str] = ()) -> None:
        recipe = run.recipe
        # copied together, as a regularizer may hold layers of the model, and without the data
        memo = {id(recipe.data): recipe.data}
        copies = (run.objective.model, recipe.surrogate, recipe.regularizers)
        model, surrogate, regularizers = copy.deepcopy(copies, memo)
        own = dataclasses.replace(
            recipe, model=model, surrogate=surrogate, regularizers=regularizers
        )
        self.recipe, self.split = own, run.train_split
        self.objective = Objective(model, surrogate, own.hooks("penalty"))
        self.edits = list(own.hooks("edit_batch").values())
        self.projections = list(own.hooks("project").values())
        self.optimizer = own.optimizer(model)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        model.train()
        for name, module in model.named_modules():
            if name in frozen:
                module.training = False
        if own.needs.train_eval_modes:
            optimizer: Any = self.optimizer
            optimizer.train()
        base = self.optimizer.defaults.get("lr") or 1.0
        self._ratios = [float(group["lr"]) / base for group in self.optimizer.param_groups]

    def train(self, rates: Sequence[float] | np.ndarray) -> list[float]:
        """Take a step at each rate, until the loss is many times its lowest value.

        Args:
            rates: learning rates, in the order of the steps.

        Returns:
            The loss of the next mini-batch after each step that was taken.
        """
        losses: list[float] = []
        lowest = math.inf
        batches = self._iterate_batches(len(rates) + 1)
        self._compute_gradient(next(batches))
        for rate, micro_batches in zip(rates, batches, strict=True):
            self._take_step(float(rate))
            losses.append(self._compute_gradient(micro_batches))
            lowest = min(lowest, losses[-1])
            # far above what counts as diverged, which is read off the smoothed losses
            if not losses[-1] <= DIVERGED**2 * lowest:
                break
        return losses

    def _iterate_batches(self, steps: int) -> Iterator[list[tuple[Batch, float]]]:
        """Iterate over the micro-batches, with their shares, of the first steps of the run."""
        # the plan of a single process: several compute the same
        plan = self.recipe.plan()
        epochs = itertools.chain.from_iterable(map(plan.epoch, itertools.count()))
        indices = list(itertools.islice(epochs, steps))
        batches = self.split.batches([index for step in indices for index, _ in step])
        for step in indices:
            yield [(next(batches), share) for _, share in step]

    def _compute_gradient(self, micro_batches: list[tuple[Batch, float]]) -> float:
        """Put the clipped ∇J of a step in ``.grad``, and return its mean loss."""
        self.optimizer.zero_grad()
        total = 0.0
        for batch, share in micro_batches:
            for edit in self.edits:
                batch = edit(batch)
            value = self.objective(None, batch)
            (value.objective * share).backward()
            total += value.risk.item() * share
        clip, parameters = self.recipe.step.clip, list(self.parameters.values())
        if clip.norm is not None:
            clip_grad_norm_(parameters, clip.norm)
        if clip.value is not None:
            clip_grad_value_(parameters, clip.value)
        return total

    def _take_step(self, rate: float) -> None:
        for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self.optimizer.step()
        with torch.no_grad():
            for project in self.projections:
                project(self.parameters)


def smooth_losses(losses: Sequence[float], smoothing: float) -> list[float]:
    """Average losses exponentially, without the bias towards 0 of the first ones.

    Args:
        losses: in their order; what follows the first that is not finite is left out, with it.
        smoothing: β in ``m ← βm + (1 − β)l``, which is divided by ``1 − βᵗ``.

    Returns:
        The averages.

    >>> smooth_losses([2.0, 2.0, math.inf, 1.0], 0.5)
    [2.0, 2.0]
    """
    averages, mean = [], 0.0
    for t, loss in enumerate(itertools.takewhile(math.isfinite, losses), 1):
        mean = smoothing * mean + (1 - smoothing) * loss
        averages.append(mean / (1 - smoothing**t))
    return averages


def choose_rate(rates: np.ndarray, losses: Sequence[float]) -> dict[str, float]:
    """Choose a learning rate by the losses after steps at growing rates.

    Args:
        rates: learning rates [n].
        losses: smoothed [n], or one fewer where the last was not finite.

    Returns:
        ``steepest``, ``diverged`` and ``suggested``, as far as the losses show them.
    """
    choice: dict[str, float] = {}
    values = np.asarray(losses)
    lowest = np.minimum.accumulate(values)
    high = np.flatnonzero(values > DIVERGED * lowest)
    end = len(values)
    if len(high):
        end = int(high[0])
    if end < len(rates):
        choice["diverged"] = float(rates[end])
    # over a tenth of the curve either way: between neighbours, the slope is that of the noise
    width = max(1, end // 10)
    if end > 2 * width:
        falls = values[2 * width : end] - values[: end - 2 * width]
        if falls.min() < 0:
            choice["steepest"] = float(rates[width + falls.argmin()])
    candidates = [choice[k] / d for k, d in (("steepest", 1), ("diverged", MARGIN)) if k in choice]
    if candidates:
        choice["suggested"] = min(candidates)
    return choice


def describe_choice(choice: dict[str, float]) -> str:
    """Write in a line which rate is suggested, and why."""
    if not choice:
        return "the loss neither falls nor diverges at any rate: try other values of low and high"
    reasons = []
    if "steepest" in choice:
        reasons.append(f"the loss falls fastest at {format_significant(choice['steepest'], 3)}")
    if "diverged" in choice:
        reasons.append(f"it diverges at {format_significant(choice['diverged'], 3)}")
    suggested = format_significant(choice["suggested"], 2)
    return f"try optimizer.lr={suggested}: {' and '.join(reasons)}"
