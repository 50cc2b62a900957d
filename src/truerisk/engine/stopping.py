"""What ends a run before its time: convergence and successive halving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.config.options import HalvingOptions, StopOptions
from truerisk.core.errors import ConfigError
from truerisk.core.stop import RunInProgress, Stop, StopRule

if TYPE_CHECKING:
    from truerisk.engine.host import Host
    from truerisk.recipe import Recipe

RUNGS = ".rungs"
"""Where a study keeps what its cells have reached."""


class ConvergenceStopping(StopRule):
    """End a run on the whole training set at the tolerance ε that ``stop`` sets.

        ‖∇J(w)‖ ≤ ε                        ``gradient_norm``
        (J(w₋) − J(w)) / |J(w)| ≤ ε        ``relative_decrease``

    w are the weights that the epoch's step began with, w₋ those of the epoch before; both numbers
    are what the step has computed anyway. Where J has risen, as it may for a fixed step length,
    nothing is decided.

    Args:
        recipe: the run's parts.
        options: the tolerances.

    Raises:
        ConfigError: the recipe uses mini-batches, whose gradient does not vanish at a minimum, or
            an optimizer that takes no gradient.
    """

    # the name of the Lightning callback it once was, which checkpoints still hold
    key = "Tolerance"

    def __init__(self, recipe: Recipe, options: StopOptions) -> None:
        self.options = options
        self.before: float | None = None
        if not recipe.plan().full:
            raise ConfigError(
                "stop.gradient_norm and stop.relative_decrease compare the objective on the whole "
                "training set: set data.batch_size=full, or leave them out"
            )
        if not recipe.needs.gradient:
            raise ConfigError(
                "stop.gradient_norm and stop.relative_decrease need an optimizer that computes "
                "gradients: leave them out, or choose another"
            )

    def judge(self, run: RunInProgress) -> Stop | None:
        """Compare the gradient's norm, and J with that of the epoch before."""
        sums, step = run.state.sums, run.state.step
        bound, stop = self.options.gradient_norm, None
        # the sum of one norm: on the whole training set an epoch is a step
        if bound is not None and sums.norm_sum <= bound:
            stop = Stop("gradient_norm", step, {"norm": sums.norm_sum, "bound": bound})
        share = self.options.relative_decrease
        if share is not None and self.before is not None:
            fallen = self.before - sums.objective
            if 0 <= fallen <= share * abs(sums.objective):
                detail = {"fallen": fallen, "objective": sums.objective, "bound": share}
                stop = Stop("relative_decrease", step, detail)
        self.before = sums.objective
        return stop

    def state_dict(self) -> dict[str, Any]:
        """Return J of the epoch before."""
        return {"before": self.before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.before = state["before"]


class Rungs:
    """Keep what the cells of a study have reached by epochs r, rη, rη², …, its rungs.

    A cell that comes to a rung goes on if its validation risk is among the best 1/η of all that
    came there before it, itself included and rounded up. Nobody waits: the first goes on in any
    case, so that the choice grows better with the number of cells. Only cells with the same data
    and loss are compared.

    Each result is an empty file whose name holds the cell and the risk, so that any number of
    processes and machines may write at once.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020),
    algorithm 2 (ASHA), in the form that stops cells instead of promoting them.

    Args:
        study: the study's folder.
        config: the cell's configuration, of which data and loss count.
        first: r, in epochs.
        factor: η.
    """

    def __init__(self, study: Path, config: Mapping[str, Any], first: int, factor: int) -> None:
        alike = [config["data"], config["loss"]]
        # by the risk, the text is that of earlier versions, whose studies go on
        if config.get("monitor", "risk/val") != "risk/val":
            alike += [config["monitor"], config["metric"]]
        same = json.dumps(alike, sort_keys=True, default=str)
        kind = hashlib.sha256(same.encode()).hexdigest()[:10]
        self.folder, self.first, self.factor = study / RUNGS / kind, first, factor

    def highest_rung(self, epoch: int) -> int | None:
        """Return the highest rung that is not above an epoch; None below the first."""
        rung = self.first
        while rung * self.factor <= epoch:
            rung *= self.factor
        return rung if rung <= epoch else None

    def report(self, cell: str, rung: int, risk: float) -> None:
        """Record a risk at a rung.

        Args:
            cell: the name of the cell's folder.
            rung: the rung's epoch.
            risk: the cell's validation risk there.
        """
        place = self.folder / str(rung)
        place.mkdir(parents=True, exist_ok=True)
        name = cell.rpartition("-")[2]
        # repr gives the very number back when the name is read.
        (place / f"{name}={risk!r}").touch()

    def compare(self, rung: int, risk: float) -> dict[str, Any] | None:
        """Compare a cell's risk with all that came to a rung.

        Args:
            rung: the rung's epoch.
            risk: the cell's validation risk there, which has been reported.

        Returns:
            None where it goes on; else its rank among how many, of whom how many are kept.
        """
        # The same cell, gone on with after a kill, comes to the same risk and counts once.
        names = (path.name.partition("=") for path in (self.folder / str(rung)).iterdir())
        risks = sorted({name: float(value) for name, _, value in names}.values())
        rank, kept = risks.index(risk) + 1, -(-len(risks) // self.factor)
        if rank <= kept:
            return None
        return {"epoch": rung, "risk": risk, "rank": rank, "among": len(risks), "kept": kept}


class SuccessiveHalving(StopRule):
    """Stop a run that falls behind the other cells of its study.

    Where several cells are measured at once, all of them are reported before any is decided on, so
    that the best goes on whatever its place in the line.

    Args:
        rungs: what the study's cells have reached.
        cell: the name of the run's folder.
        host: the processes of the run, of which the first reads and writes.
    """

    # likewise; Lightning's state_key is a text of the callback's arguments
    key = "Halving{'monitor': 'risk/val', 'mode': 'min'}"

    def __init__(self, rungs: Rungs, cell: str, host: Host) -> None:
        self.rungs, self.cell, self.host = rungs, cell, host
        self.rung: int | None = None

    def start(self, run: RunInProgress) -> None:
        """Pass by the rungs that the run had come to before it was cut off."""
        self.rung = self.rungs.highest_rung(run.state.epoch)

    def report(self, run: RunInProgress, values: Mapping[str, float]) -> None:
        """Record the risk at a rung, or at the first measurement after it."""
        rung = self.due_rung(run)
        if rung is not None and self.host.rank == 0:
            self.rungs.report(self.cell, rung, self.read_score(run, values))

    def decide(self, run: RunInProgress, values: Mapping[str, float]) -> Stop | None:
        """Compare the risk with those of the cells that came before."""
        rung = self.due_rung(run)
        if rung is None:
            return None
        self.rung = rung
        detail = None
        if self.host.rank == 0:
            detail = self.rungs.compare(rung, self.read_score(run, values))
            if detail is not None and run.recipe.monitor != "risk/val":
                detail["risk"] = values[run.recipe.monitor]
                detail["what"] = run.recipe.monitor
        detail = self.host.broadcast(detail)
        return None if detail is None else Stop("halving", run.state.step, detail)

    def read_score(self, run: RunInProgress, values: Mapping[str, float]) -> float:
        """Read what the study's cells are compared by, turned so that less is better.

        Args:
            run: how the run stands.
            values: what was measured, by name.
        """
        score: float = run.recipe.orient(run.recipe.monitor, values[run.recipe.monitor])
        return score

    def due_rung(self, run: RunInProgress) -> int | None:
        """Return the rung that is to be compared at, if there is one."""
        epoch = run.state.epoch
        rung = self.rungs.highest_rung(epoch)
        # A last measurement off the grid comes at no epoch that others are measured at.
        if epoch % run.recipe.risk.every or rung == self.rung:
            return None
        return rung


def make_stop_rules(
    recipe: Recipe, config: Mapping[str, Any], folder: Path, host: Host
) -> list[StopRule]:
    """Make what decides when a run stops.

    Args:
        recipe: the run's parts, whose regularizers may bring rules.
        config: the run's plain, resolved configuration.
        folder: the run's folder, which lies in its study's.
        host: the run's processes.

    Raises:
        ConfigError: ``stop`` does not fit the recipe, or ``halving`` a run that is none of a study.
    """
    rules = [rule for r in recipe.regularizers.values() for rule in r.stop_rules()]
    tolerances = StopOptions(**config.get("stop", {}))
    if tolerances != StopOptions():
        rules.append(ConvergenceStopping(recipe, tolerances))
    halving = HalvingOptions(**config.get("halving", {}))
    if halving.first is not None:
        if config.get("study") is None:
            raise ConfigError("halving.first compares the cells of a sweep: add --multirun (-m)")
        rungs = Rungs(folder.parent, config, halving.first, halving.factor)
        rules.append(SuccessiveHalving(rungs, folder.name, host))
    return rules
