"""Tuning by Optuna: where to look next follows from how earlier points ended."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override

from truerisk.config.contents import hash_contents, list_changed
from truerisk.config.targets import locate_target
from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.logger.history import read_rows
from truerisk.outcome import Outcome
from truerisk.risk.measured import Monitor, read_monitor
from truerisk.run import RunFolder
from truerisk.sweeps.sweep_cell import IGNORED
from truerisk.sweeps.sweeper import Batches
from truerisk.sweeps.sweeper.axis import (
    DISTRIBUTION,
    SweepAxes,
    format_axis,
    format_number,
    interval_bounds,
    list_values,
    parse_distribution,
    split_axes,
)

if TYPE_CHECKING:
    import optuna

    from truerisk.sweeps.study_folder import StudyFolder

SAMPLERS = ("tpe", "cmaes", "gp", "random", "qmc")
MOST_REFUSED = 20
"""Points that cannot work, one after another, after which no more are tried."""


class Tuner:
    """Minimises the validation risk, averaged over the values of crossed axes.

    With ``monitor`` it is that value which counts, and where higher is better it is maximised.

    Trials are kept in a database: the same command given again takes up those that were cut off
    and goes on to ``trials`` in all, and several launches share them. A trial holds the mean
    validation risk after each epoch as intermediate values, and tells the ``folder`` of its run
    and the ``stderr`` of its value as user attributes. Trials that diverge, or that
    successive halving (``halving``) stops, count as pruned; those that fail tell the sampler
    nothing. A point that cannot work, such as an option beside a key of another, is refused before
    training and is none of the ``trials``.

    Source: Akiba et al., "Optuna" (KDD 2019); Bergstra et al. (NIPS 2011) for TPE, Hansen,
    "The CMA Evolution Strategy: A Tutorial" (2016) for CMA-ES.

    Args:
        params: axes, as on the command line.
        trials: points in all.
        batch: points asked for at once, to be trained together or side by side.
        sampler: tpe, cmaes, gp, random or qmc.
        startup: random points before the first that tpe or gp chooses.
        storage: a database's URL, or the path of a log (``….log``) where machines share files but
            no database; None is an SQLite file in the study's folder.
        seed: of the sampler.
        crossed: axes that are not tuned, but averaged over.
    """

    adaptive = True

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        trials: int = 50,
        batch: int = 1,
        sampler: str = "tpe",
        startup: int = 10,
        storage: str | None = None,
        seed: int = 0,
        crossed: Sequence[str] = ("seed",),
    ) -> None:
        if sampler not in SAMPLERS:
            hint, known = suggest(sampler, SAMPLERS), ", ".join(SAMPLERS)
            if not hint.startswith("known"):
                hint += f" known: {known}"
            raise ConfigError(f"hydra.sweeper.sampler={sampler}: {hint}")
        self.params, self.sampler, self.storage = params or {}, sampler, storage
        self.trials = check_int("hydra.sweeper.trials", trials)
        self.batch = check_int("hydra.sweeper.batch", batch)
        self.startup, self.seed, self.crossed = startup, seed, crossed

    def propose_batches(self, overrides: Sequence[Override], study: StudyFolder) -> Batches:
        """Propose a batch of trials after another, until there are enough.

        Raises:
            ConfigError: there is nothing to tune, or the storage cannot be opened.
        """
        axes = split_axes(overrides, self.crossed)
        if not axes.searched:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to tune: give an axis, as in "
                "'optimizer.lr=tag(log,interval(1e-4,1))'"
            )
        space = {key: to_optuna_distribution(axis) for key, axis in axes.searched.items()}
        tuned, elsewhere = self._open_study(axes, study), set[int]()
        while trials := self._next_trials(tuned, space, elsewhere):
            points = [axes.list_points(_read_params(trial, space)) for trial in trials]
            ended = iter((yield [point for trial_points in points for point in trial_points]))
            for trial, trial_points in zip(trials, points, strict=True):
                if not report_trial(tuned, trial, [next(ended) for _ in trial_points]):
                    elsewhere.add(trial.number)

    def _open_study(self, axes: SweepAxes, study: StudyFolder) -> optuna.Study:
        """Open Optuna's study of these axes, or begin it."""
        import optuna
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study.folder.mkdir(parents=True, exist_ok=True)
        where = self.storage or f"sqlite:///{study.folder / 'optuna.db'}"
        name = f"{study.folder.name}-{_hash_axes(axes)}"
        shared = _compose_shared(axes, study)
        contents = hash_contents(shared) if shared else {}
        direction: Literal["minimize", "maximize"] = "minimize"
        if _is_maximised(shared):
            direction = "maximize"
        try:
            storage = _open_storage(where)
            name = _name_by_contents(storage, name, contents)
            # one that exists keeps its direction: earlier versions minimised whatever it was
            tuned = optuna.create_study(
                storage=storage, study_name=name, direction=direction, load_if_exists=True
            )
            summaries = optuna.get_all_study_summaries(storage)
        except (OptunaError, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.storage={where}: {first_line(error)}") from error
        if contents and "contents" not in tuned.user_attrs:
            tuned.set_user_attr("contents", contents)
        others = [s for s in summaries if s.study_name != name and s.n_trials]
        if others and not tuned.get_trials(deepcopy=False):
            count = sum(summary.n_trials for summary in others)
            print(
                f"{where} holds {count} trials of another search space, recipe, file or class: "
                "they count for nothing here, and their runs stay beside these",
                file=sys.stderr,
            )
        return tuned

    def _next_trials(
        self, tuned: optuna.Study, space: Mapping[str, Any], elsewhere: Collection[int]
    ) -> list[optuna.Trial]:
        """Resume trials that were cut off, then ask for new ones; skip those of other launches."""
        import optuna

        running = (optuna.trial.TrialState.RUNNING,)
        before = tuned.get_trials(deepcopy=False)
        cut = [t for t in before if t.state in running and t.number not in elsewhere]
        cut = cut[: self.batch]
        refused = [t.user_attrs.get("status") == "refused" for t in before]
        new = min(self.batch - len(cut), self.trials - len(before) + sum(refused))
        # an option may need luck to meet the keys that are its own, and a slip has none
        if all(refused[-max(MOST_REFUSED, self.trials) :]) and sum(refused) >= MOST_REFUSED:
            new = 0
        # a sampler's state is not stored: seeding it by the number of trials lets a command that
        # is given again go on with other draws than it began with
        tuned.sampler = self._make_sampler(self.seed + len(before))
        asked = [tuned.ask(dict(space)) for _ in range(new)]
        return [optuna.trial.Trial(tuned, t._trial_id) for t in cut] + asked

    def _make_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna import samplers

        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        if self.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=self.startup)
        if self.sampler == "cmaes":
            # a generation is a batch, so that all of one is known when the next is made
            size = None
            if self.batch > 1:
                size = max(self.batch, 4)
            return samplers.CmaEsSampler(seed=seed, popsize=size)
        if self.sampler == "qmc":
            # one sequence for all of a study: another seed would begin another
            return samplers.QMCSampler(seed=self.seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)


def _open_storage(where: str) -> Any:
    """Open a log that machines share; the URL of a database is left to Optuna."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if where.endswith(".log"):
        return JournalStorage(JournalFileBackend(where))
    return where


def _compose_shared(axes: SweepAxes, study: StudyFolder) -> Mapping[str, Any]:
    """Compose what all trials share; empty where that is no whole configuration yet."""
    shared = [f"{key}={text}" for key, text in axes.fixed.items()]
    with suppress(ConfigError):  # a key may be missing that is tuned
        return study.compose(shared).config
    return {}


def _is_maximised(config: Mapping[str, Any]) -> bool:
    """Tell whether higher is better of what runs follow, before there is one."""
    kind, _, name = str(config.get("monitor", "")).partition("/")
    node = (config.get("metric") or {}).get(name.partition("/")[0])
    if kind != "metric" or node is None:
        return False
    target = locate_target(str(node["_target_"]), f"metric.{name}._target_")
    higher = getattr(target, "higher_is_better", None)
    if higher is None and hasattr(target, "look_up_direction"):
        options = {key: value for key, value in node.items() if key != "_target_"}
        with suppress(TypeError):  # a key that it does not take is told with the cells
            higher = target(**options).look_up_direction()
    return bool(higher)


def _name_by_contents(storage: Any, name: str, contents: Mapping[str, str]) -> str:
    """Give trials a study of their own where a file or class was edited since the first of them."""
    import optuna

    try:
        before = optuna.load_study(study_name=name, storage=storage).user_attrs.get("contents", {})
    except KeyError:  # there is none yet
        return name
    if not list_changed(before, contents):
        return name
    text = repr(sorted(contents.items()))
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _hash_axes(axes: SweepAxes) -> str:
    """Hash what is tuned, in eight digits: another recipe or space has trials of its own."""
    fixed = {k: v for k, v in axes.fixed.items() if re.split(r"[./]", k)[0] not in IGNORED}
    searched = {key: format_axis(override) for key, override in axes.searched.items()}
    text = repr(sorted((fixed | searched | axes.crossed).items(), key=str))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def to_optuna_distribution(override: Override) -> Any:
    """Turn an axis into a distribution of Optuna's.

    Raises:
        ConfigError: it is a distribution that Optuna has not.
    """
    from optuna import distributions

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = interval_bounds(value)
        log = "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return distributions.IntDistribution(low, high, log=log)
        return distributions.FloatDistribution(low, high, log=log)
    if DISTRIBUTION in getattr(value, "tags", ()):
        name, numbers = parse_distribution(override)
        if name != "loguniform" or len(numbers) != 2:
            raise ConfigError(
                f"{format_axis(override)}: optuna searches interval(a,b), "
                "tag(log,interval(a,b)), loguniform(a,b) and lists of values"
            )
        low, high = map(float, numbers)
        return distributions.FloatDistribution(low, high, log=True)
    return distributions.CategoricalDistribution(list_values(override))


def _read_params(trial: optuna.Trial, space: Mapping[str, Any]) -> dict[str, str]:
    """Read the values of a trial, as texts of overrides."""
    values = {key: trial.params[key] for key in space}
    return {k: v if isinstance(v, str) else format_number(v) for k, v in values.items()}


def report_trial(tuned: optuna.Study, trial: optuna.Trial, ended: Sequence[Outcome]) -> bool:
    """Report to Optuna how a trial's runs ended.

    Args:
        tuned: Optuna's study.
        trial: that has ended.
        ended: the outcomes of its runs, one for each combination of crossed axes.

    Returns:
        False where some of them are in other hands, so that nothing is reported yet.
    """
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    statuses = {outcome.status for outcome in ended}
    if "elsewhere" in statuses:
        return False
    describe_trial(trial, ended)
    sign = 1
    if tuned.direction == StudyDirection.MAXIMIZE:  # outcomes are turned so that less is better
        sign = -1
    stops = [outcome.stop for outcome in ended if outcome.stop is not None]
    epochs = [stop.detail["epoch"] for stop in stops if stop.kind == "halving"]
    mean = sign * math.fsum(outcome.value for outcome in ended) / len(ended)
    # A diverged run's curve is not told: a sampler would take a pruned trial with values for a
    # better one than those that were pruned without.
    if "diverged" not in statuses:
        for epoch, value in average_curves(ended).items():
            if not epochs or epoch < max(epochs):
                trial.report(sign * value, epoch)
    if epochs and math.isfinite(mean):
        trial.report(mean, max(epochs))
    # another launch may have told of the same trial: `skip_if_finished`
    if statuses == {"finished"} and not epochs and math.isfinite(mean):
        tuned.tell(trial, mean, skip_if_finished=True)
    elif epochs or "diverged" in statuses:
        tuned.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    else:
        tuned.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    return True


def describe_trial(trial: optuna.Trial, ended: Sequence[Outcome]) -> None:
    """Tell Optuna where a trial's runs lie, how they ended, and how sure their value is.

    The standard error of one run is that of its validation risk over samples; of several, that of
    their mean over runs.

    Args:
        trial: that has ended.
        ended: the outcomes of its runs.
    """
    folders = [str(outcome.folder) for outcome in ended if outcome.folder is not None]
    values = [outcome.value for outcome in ended if math.isfinite(outcome.value)]
    stderr = None
    if len(values) > 1:
        stderr = statistics.stdev(values) / math.sqrt(len(values))
    elif len(values) == len(folders) == 1:
        run = RunFolder(folders[0])
        measured = run.summary().get(read_monitor(run.metadata()).name)
        stderr = measured.stderr if measured is not None else None
    told = {
        "folder": folders[0] if len(folders) == 1 else folders,
        "status": ", ".join(dict.fromkeys(outcome.status for outcome in ended)),
        "stderr": stderr,
    }
    for name, value in told.items():
        if value not in (None, []):
            trial.set_user_attr(name, value)


def average_curves(ended: Sequence[Outcome]) -> dict[int, float]:
    """Average what runs followed, turned so that less is better, epoch by epoch.

    Args:
        ended: the outcomes of runs.

    Returns:
        Means over the runs by epoch, as far as all of them have come.
    """
    curves: list[dict[int, float]] = []
    for folder in (outcome.folder for outcome in ended):
        rows = read_rows(folder / "metrics.csv") if folder is not None else []
        monitor = Monitor()
        if folder is not None:
            monitor = read_monitor(RunFolder(folder).metadata())
        mark = f",{monitor.name},".encode()
        named = (next(csv.reader([row.decode()])) for row in rows if mark in row)
        curves.append({int(e): monitor.orient(float(value)) for _, e, _, value in named if e})
    shared = set.intersection(*map(set, curves)) if curves else set()
    means = {epoch: math.fsum(c[epoch] for c in curves) / len(curves) for epoch in sorted(shared)}
    return {epoch: mean for epoch, mean in means.items() if math.isfinite(mean)}
