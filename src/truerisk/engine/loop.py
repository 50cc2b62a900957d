"""The run: start, epochs, decide, finish. Read this first.

One procedure trains one run or K of them; what differs is the backend below it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

from torch import Tensor

from truerisk.core.errors import Diverged, Interrupted
from truerisk.core.stop import Stop
from truerisk.engine.host import Host
from truerisk.engine.measure import is_final
from truerisk.engine.state import BestWeights, CheckpointParts, TrainingRun
from truerisk.risk.estimate import flatten_metrics
from truerisk.risk.measured import Measured

AGREE_EVERY = 16
"""Steps after which several processes ask each other whether to save or stop."""
SHARE = 20
"""Checkpoints of many runs may take one part in so many of their time."""


class Backend(Protocol):
    """The weights of one model, or of K stacked ones, and what is done with them.

    Attributes:
        host: the processes and the device.
    """

    host: Host

    @property
    def runs(self) -> Sequence[TrainingRun]:
        """Those that still train; all stand at the same step."""

    def begin(self) -> None:
        """Bring weights and data to their place, and go on with a run's random streams."""

    def rest_of_epoch(self) -> Iterable[Any]:
        """Yield the mini-batches of the steps that are left of the epoch, and of the run."""

    def take_step(self, batch: Any) -> Mapping[int, Diverged]:
        """Take a step: edit, gradient, check, clip, update, schedule, project, average.

        A stack may take several, one row after another.

        Returns:
            Why some rows are no longer finite, and so are the last to be told of them.
        """

    def evaluating(self) -> AbstractContextManager[None]:
        """Hold the weights that count still, in eval mode; training then goes on as it was."""

    def epoch_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure some rows after an epoch."""

    def copy_weights(self, row: int) -> dict[str, Tensor]:
        """Copy the weights and buffers that were measured."""

    def final_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure the best weights of some rows on what the end of a run takes."""

    def explain_divergence(self, row: int) -> Diverged:
        """Say what is no longer finite where the validation risk is not."""

    def checkpoint_parts(self, rows: Sequence[int]) -> Iterable[CheckpointParts]:
        """Give what a checkpoint of some rows needs beside their states, of one before the next."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""


class Observer:
    """Look at the runs while they train; a subclass overrides what it needs."""

    def on_start(self, loop: TrainingLoop) -> None:
        """See the initial weights, or those that a resumed run goes on with."""

    def on_step(self, loop: TrainingLoop) -> None:
        """See the weights after a step; a stack's, perhaps after several."""

    def on_epoch(self, loop: TrainingLoop) -> None:
        """See what an epoch has measured."""

    def on_end(self, loop: TrainingLoop) -> None:
        """See the last weights of runs that have come to their end."""

    def on_break(self, loop: TrainingLoop) -> None:
        """Let go: the runs have diverged, failed or been interrupted."""


class TrainingLoop:
    """Train the runs of a backend.

    Args:
        backend: their weights.
        observers: what looks at them.
        checkpoint_seconds: the least time between two checkpoints.
        on_finish: called with a run whose files are all written, and its status.
        deadline: seconds after which the runs end with their epoch.
    """

    def __init__(
        self,
        backend: Backend,
        observers: Sequence[Observer] = (),
        checkpoint_seconds: float = math.inf,
        on_finish: Callable[[TrainingRun, str], None] = lambda run, status: None,
        deadline: float = math.inf,
    ) -> None:
        self.backend, self.observers, self.on_finish = backend, list(observers), on_finish
        # a call after every step counts on a small model: only for those that look at steps
        overrides = (type(o).on_step is not Observer.on_step for o in self.observers)
        self.step_observers = [o for o, own in zip(self.observers, overrides, strict=True) if own]
        self.checkpoint_seconds, self.deadline = checkpoint_seconds, time.monotonic() + deadline
        self.saved_at, self.saving_took = time.monotonic(), 0.0
        self.stop_requested = ""

    def request_stop(self, signal_name: str) -> None:
        """Ask for an end after the present step, as a signal of that name does."""
        self.stop_requested = signal_name

    def train(self) -> None:
        """Train until every run has ended.

        Raises:
            Interrupted: an end was asked for; every run has been saved.
        """
        with self.letting_go():
            self.begin()
            while self.backend.runs:
                for batch in self.backend.rest_of_epoch():
                    self.take_step(batch)
                    if not self.backend.runs:
                        return
                self.end_epoch()

    def begin(self) -> None:
        """Start, and end the runs that had come to their end when they were cut off."""
        self.start()
        for run in self.backend.runs:
            if not run.is_over:  # it goes on to another end
                run.state.final = {}
        # A run that was killed after its last checkpoint has only its end left.
        stops = [run.state.stop for run in self.backend.runs]
        gone = [k for k, stop in enumerate(stops) if stop and stop.kind == "divergence"]
        self.give_up(gone, measured=True)
        self.finish([k for k, run in enumerate(self.backend.runs) if run.is_over])

    @contextmanager
    def letting_go(self) -> Iterator[None]:
        """Close what is open where the block breaks off."""
        try:
            yield
        # not Exception: Ctrl-C and SystemExit must leave loggers closed too
        except BaseException:
            for observer in self.observers:
                observer.on_break(self)
            for run in self.backend.runs:
                with suppress(OSError):  # on a full disk it is the first error that counts
                    run.recorder.close("interrupted")
            raise

    @property
    def first(self) -> TrainingRun:
        """One of the runs, which all stand at the same step."""
        return self.backend.runs[0]

    def start(self) -> None:
        """Begin, or go on: measure the initial weights as epoch 0."""
        for run in self.backend.runs:
            run.recorder.open()
        self.backend.begin()
        for observer in self.observers:
            observer.on_start(self)
        for run in self.backend.runs:
            for rule in run.rules:
                rule.start(run)
        if self.first.state.step == 0:
            runs = list(self.backend.runs)
            self.measure(range(len(runs)))
            for run in runs:
                for rule in run.rules:
                    if run.values:
                        rule.check(run.values)

    def take_step(self, batch: Any) -> None:
        """Take one step of every run, and save where that is due."""
        diverged = self.backend.take_step(batch)
        if diverged:
            self.diverge(diverged)
            if not self.backend.runs:
                return
        for observer in self.step_observers:
            observer.on_step(self)
            if not self.backend.runs:  # it has seen a run go where none comes back from
                return
        run = self.first
        mid_epoch = run.state.step_in_epoch < run.plan.steps_per_epoch
        # An epoch that has ended is measured first.
        alone = self.backend.host.world_size == 1
        if (
            mid_epoch
            and run.state.step < run.horizon
            and (alone or run.state.step % AGREE_EVERY == 0)
        ):
            self.save_if_due()

    def end_epoch(self) -> None:
        """Measure the epoch where that is due, and end the runs that are over."""
        # clocks of processes differ, and all must end after the same epoch
        over = self.backend.host.any(time.monotonic() >= self.deadline)
        for run in self.backend.runs:
            run.state.epoch += 1
            run.state.step_in_epoch = 0
            for rule in run.rules:
                # before measuring, as a run that stops is measured at whatever epoch
                run.state.stop = rule.judge(run) or run.state.stop
            if over and run.state.stop is None:
                run.state.stop = Stop("time", run.state.step, {})
        due = self.first.state.epoch % self.first.recipe.risk.every == 0
        rows = [k for k, run in enumerate(self.backend.runs) if due or run.ended]
        measured = self.measure(rows)
        # all report before any is decided on, so that their order in the stack decides nothing
        for run in measured:
            for rule in run.rules:
                rule.report(run, run.values)
        for run in measured:
            for rule in run.rules:
                run.state.stop = rule.decide(run, run.values) or run.state.stop
        for run in self.backend.runs:
            run.state.sums.clear()
        if not self.backend.runs:
            return
        for observer in self.observers:
            observer.on_epoch(self)
        self.save_if_due()
        self.finish([k for k, run in enumerate(self.backend.runs) if run.ended])

    # --- measuring ----------------------------------------------------------------------------

    def measure(self, rows: Sequence[int]) -> list[TrainingRun]:
        """Measure some runs, log it, and keep the weights that are the best yet.

        Returns:
            Those of them that go on: where the validation risk is not finite a run has diverged.
        """
        if not rows:
            return []
        runs, diverged = [self.backend.runs[k] for k in rows], {}
        with self.backend.evaluating():
            for k, run, metrics in zip(rows, runs, self.backend.epoch_risks(rows), strict=True):
                risk = metrics["risk/val"].value
                if not math.isfinite(risk):
                    diverged[k] = self.backend.explain_divergence(k)
                    continue
                monitor = run.recipe.monitor
                score = run.recipe.orient(monitor, metrics[monitor].value)
                self.keep_best(k, run, risk, score)
                run.schedule.step_epoch(score)
                values = flatten_metrics(metrics, run.rates() | run.state.sums.means())
                run.log(values)
                run.values, run.measured = values, run.state.epoch
        self.diverge(diverged)
        return [run for run in runs if run in self.backend.runs]

    def keep_best(self, row: int, run: TrainingRun, risk: float, score: float) -> None:
        """Keep a run's weights if what it follows is the best yet.

        Args:
            row: of the run.
            run: the run.
            risk: its validation risk.
            score: the value of its ``monitor``, turned so that less is better.
        """
        best = run.state.best
        if best is None or score < best.standing:
            weights = self.backend.copy_weights(row)
            state = run.state
            run.state.best = BestWeights(risk, state.epoch, state.step, weights, score)

    # --- the end of a run ---------------------------------------------------------------------

    def diverge(self, errors: Mapping[int, Diverged]) -> None:
        """End the runs that are no longer finite."""
        if not errors:
            return
        for k, error in errors.items():
            detail = {"what": error.what, "fault": error.fault}
            self.backend.runs[k].state.stop = Stop("divergence", error.step, detail)
        self.give_up(list(errors), self._keep_measurement(list(errors)))

    def give_up(self, rows: Sequence[int], measured: bool) -> None:
        """Conclude runs that have diverged."""
        if not rows:
            return
        # observers look at all runs at once: they go on while one of them does
        if len(rows) == len(self.backend.runs):
            for observer in self.observers:
                observer.on_break(self)
        self.conclude(rows, "diverged", measured)

    def finish(self, rows: Sequence[int]) -> None:
        """End the runs that have come to their end."""
        if not rows:
            return
        for observer in self.observers:
            observer.on_end(self)
        measured = self._keep_measurement(rows)
        if not measured:
            self.save(rows)
        self.conclude(rows, "finished", measured)

    def _keep_measurement(self, rows: Sequence[int]) -> bool:
        """Measure runs that end together, and save that with them; whether there are several."""
        # its last digits are those of all rows at once, of which some may be done when the others
        # are resumed
        if len(rows) > 1:
            self.measure_best(rows)
            self.save(rows)
        return len(rows) > 1

    def measure_best(self, rows: Sequence[int]) -> None:
        """Measure the best weights of some runs, each for once and all."""
        rows = [k for k in rows if self.backend.runs[k].state.best is not None]
        for k, risks in zip(rows, self.backend.final_risks(rows), strict=True):
            state = self.backend.runs[k].state
            # measured again all the same, for the tables
            state.final = state.final or risks

    def conclude(self, rows: Sequence[int], status: str, measured: bool = False) -> None:
        """Write down how some runs have ended, and let them go.

        Args:
            rows: of the runs.
            status: ``finished`` or ``diverged``.
            measured: whether their best weights have been measured.
        """
        runs = [self.backend.runs[k] for k in rows]
        if not measured:
            self.measure_best(rows)
        for run in runs:
            if run.state.best is not None:
                run.recorder.save_best(run.state.best, run.recipe.data.state_dict())
                late = {n: m for n, m in run.state.final.items() if is_final(n)}
                run.log(flatten_metrics(late, {}), run.state.best.epoch)
        for run in runs:
            # in this order, as loggers end with what the summary holds
            run.recorder.write_summary(run.state.final)
            run.recorder.write_tables(run.estimator.tables)
            run.recorder.write_losses(run.estimator.losses)
            run.recorder.close(status)
            self.on_finish(run, status)
        self.backend.keep([k for k, run in enumerate(self.backend.runs) if run not in runs])

    # --- checkpoints --------------------------------------------------------------------------

    def save_if_due(self) -> None:
        """Save every run where it is time, or where an end is asked for.

        Raises:
            Interrupted: an end was asked for, in any of the processes.
        """
        stop = self.backend.host.any(bool(self.stop_requested))
        pause = self.checkpoint_seconds
        if len(self.backend.runs) > 1:
            pause = max(pause, SHARE * self.saving_took)
        if stop or self.backend.host.any(time.monotonic() - self.saved_at >= pause):
            began = time.monotonic()
            self.save(range(len(self.backend.runs)))
            self.saved_at = time.monotonic()
            self.saving_took = self.saved_at - began
        if stop:
            raise Interrupted(self.stop_requested)

    def save(self, rows: Sequence[int]) -> None:
        """Write the checkpoints of some runs."""
        for k, parts in zip(rows, self.backend.checkpoint_parts(rows), strict=True):
            run = self.backend.runs[k]
            run.recorder.save(run.checkpoint(parts), run.state.best, run.recipe.data.state_dict())
