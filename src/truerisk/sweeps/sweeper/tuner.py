"""Tuning by Optuna: where to look next follows from how earlier points ended."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from hydra.core.override_parser.types import IntervalSweep, Override

from truerisk.config.contents import hash_contents, list_changed
from truerisk.config.targets import locate_target
from truerisk.core.atomic_files import part_path, put_in_place
from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, first_line, format_count, suggest
from truerisk.logger.history import read_rows
from truerisk.outcome import Outcome
from truerisk.risk.measured import Monitor, read_monitor
from truerisk.run import RunFolder
from truerisk.sweeps.locks import Claims, FileClaims, PostgresClaims
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
MOST_LOSSES = 3
"""Times that a trial's processes may be killed before it counts as failed."""


class Tuner:
    """Minimises the validation risk, averaged over the values of crossed axes.

    With ``monitor`` it is that value which counts, and where higher is better it is maximised.

    Trials are kept in a database: the same command given again takes up those that were cut off
    and goes on to ``trials`` in all, and several launches share them: each trial is claimed by
    one (`truerisk.sweeps.locks.Claims`), and asked again where a process of its was killed. A
    trial holds the mean validation risk after each epoch as intermediate values, and tells the
    ``folder`` of its run and the ``stderr`` of its value as user attributes. Trials that diverge,
    or that successive halving (``halving``) stops, count as pruned; those that fail tell the
    sampler nothing. A point that cannot work, such as an option beside a key of another, is refused
    before training and is none of the ``trials``.

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
        self.startup = check_int("hydra.sweeper.startup", startup, 0)
        self.seed, self.crossed = check_int("hydra.sweeper.seed", seed, 0), crossed

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
        tuned, claims = self._open_study(axes, study)
        shared = SharedTrials(tuned, claims)
        try:
            while trials := self._next_trials(shared, space):
                points = [axes.list_points(_read_params(trial, space)) for trial in trials]
                ended = iter((yield [point for trial_points in points for point in trial_points]))
                for trial, trial_points in zip(trials, points, strict=True):
                    shared.tell(trial, [next(ended) for _ in trial_points])
        finally:
            claims.close()

    def _open_study(self, axes: SweepAxes, study: StudyFolder) -> tuple[optuna.Study, Claims]:
        """Open Optuna's study of these axes, or begin it; with the claims on its trials."""
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
            claims = make_claims(where, study.folder)
            # tables and studies are made by many statements, between which nobody must come
            with claims.alone():
                storage = open_storage(where)
                name = _name_by_contents(storage, name, contents)
                # one that exists keeps its direction: earlier versions minimised whatever it was
                tuned = optuna.create_study(
                    storage=storage, study_name=name, direction=direction, load_if_exists=True
                )
                summaries = optuna.get_all_study_summaries(storage)
                if contents and "contents" not in tuned.user_attrs:
                    tuned.set_user_attr("contents", contents)
        except (OptunaError, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.storage={where}: {first_line(error)}") from error
        others = [s for s in summaries if s.study_name != name and s.n_trials]
        if others and not tuned.get_trials(deepcopy=False):
            count = sum(summary.n_trials for summary in others)
            print(
                f"{where} holds {format_count(count, 'trial')} of another search space, recipe, "
                "file or class: they count for nothing here, and their runs stay beside these",
                file=sys.stderr,
            )
        return tuned, claims

    def _next_trials(self, shared: SharedTrials, space: Mapping[str, Any]) -> list[optuna.Trial]:
        """Take up trials that were cut off, then ask for new ones; skip those of other launches."""
        with shared.claims.alone():
            before = shared.study.get_trials(deepcopy=False)
            cut = shared.take_up(before, space, self.batch)
            refused = [t.user_attrs.get("status") == "refused" for t in before]
            new = min(self.batch - len(cut), self.trials - len(before) + sum(refused))
            # an option may need luck to meet the keys that are its own, and a slip has none
            if all(refused[-max(MOST_REFUSED, self.trials) :]) and sum(refused) >= MOST_REFUSED:
                new = 0
            # a sampler's state is not stored: seeding it by the number of trials lets a command
            # that is given again, or at the same time, go on with other draws
            shared.study.sampler = self._make_sampler(self.seed + len(before))
            return cut + [shared.ask(space) for _ in range(new)]

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


class SharedTrials:
    """The trials of a study, of which several launches ask, each trial claimed by one of them.

    Args:
        study: Optuna's.
        claims: on its trials.
    """

    def __init__(self, study: optuna.Study, claims: Claims) -> None:
        self.study, self.claims = study, claims
        self.elsewhere, self.losses = set[int](), Counter[int]()

    def ask(self, space: Mapping[str, Any]) -> optuna.Trial:
        """Ask for a new trial, where no other launch does at the moment."""
        trial = self.study.ask(dict(space))
        self.claims.take(self._key(trial.number))
        return trial

    def take_up(
        self, trials: Sequence[optuna.trial.FrozenTrial], space: Mapping[str, Any], most: int
    ) -> list[optuna.Trial]:
        """Take up trials that nobody is at, though they have not ended.

        Numbers that were not stored when their launch was killed are drawn at random.

        Args:
            trials: all there are.
            space: distributions by name.
            most: so many at most.
        """
        from optuna.samplers import RandomSampler
        from optuna.trial import Trial, TrialState

        left = [t for t in trials if t.state == TrialState.RUNNING]
        left = [t for t in left if t.number not in self.elsewhere]
        cut = []
        free = (t for t in left if self.claims.take(self._key(t.number)))
        for frozen in islice(free, most):
            # not the study's own sampler, which would choose once more and count that; and not
            # seeded as another, so that no number is a function of one that is stored
            seed = crc32(f"{self.study.study_name} {frozen.number}".encode())
            self.study.sampler = RandomSampler(seed=seed)
            trial = Trial(self.study, frozen._trial_id)
            for name, distribution in space.items():
                trial._suggest(name, distribution)
            cut.append(trial)
        return cut

    def tell(self, trial: optuna.Trial, ended: Sequence[Outcome]) -> None:
        """Report how a trial's runs ended, unless some of them are not over.

        One whose process was killed says nothing of the trial, which is asked again.

        Args:
            trial: that has ended.
            ended: the outcomes of its runs, one for each combination of crossed axes.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if any(outcome.lost or outcome.status == "interrupted" for outcome in ended):
            self.losses[trial.number] += 1
            if self.losses[trial.number] < MOST_LOSSES:
                return
        if any(outcome.status == "elsewhere" for outcome in ended):
            self.elsewhere.add(trial.number)
        else:
            # where a file system has no locks, another launch may have been at it too
            with self.claims.alone(), suppress(UpdateFinishedTrialError):
                report_trial(self.study, trial, ended)
        self.claims.release(self._key(trial.number))

    def _key(self, number: int) -> str:
        return f"{self.study.study_name}/{number}"


def make_claims(where: str, folder: Path) -> Claims:
    """Make the claims on what a storage holds: by files that lie beside it, or by its server.

    Args:
        where: a database's URL, or the path of a log.
        folder: of the study, for servers that have no locks that we know of.

    Raises:
        ValueError, OSError, sqlalchemy.exc.SQLAlchemyError: there is no such thing.
    """
    from sqlalchemy import make_url

    file = Path(where) if where.endswith(".log") else _find_database(where)
    if file is not None:
        folder = file.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    elif make_url(where).get_backend_name() == "postgresql":
        return PostgresClaims(make_url(where))
    return FileClaims(folder)


def _find_database(where: str) -> Path | None:
    """Find the file of an SQLite database; None where it is another one."""
    from sqlalchemy import make_url

    url = make_url(where)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def open_storage(where: str) -> Any:
    """Open a database, or a log that machines share; what is not there yet is made.

    Args:
        where: a database's URL, or the path of a log.
    """
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if where.endswith(".log"):
        return JournalStorage(JournalFileBackend(where))
    file = _find_database(where)
    if file is not None and not file.exists():
        # SQLite makes tables one by one: a process killed between two would leave half of them
        part = part_path(file)
        part.unlink(missing_ok=True)
        RDBStorage(f"sqlite:///{part}").engine.dispose()
        put_in_place(part, file)
    return get_storage(where)


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
    higher = node.get("higher_is_better", getattr(target, "higher_is_better", None))
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
        low, high = interval_bounds(override)
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
        try:
            low, high = map(float, numbers)
            return distributions.FloatDistribution(low, high, log=True)
        except (TypeError, ValueError) as error:
            said = "it takes two numbers above 0, the smaller first"
            raise ConfigError(f"{format_axis(override)}: {said}") from error
    return distributions.CategoricalDistribution(list_values(override))


def _read_params(trial: optuna.Trial, space: Mapping[str, Any]) -> dict[str, str]:
    """Read the values of a trial, as texts of overrides."""
    values = {key: trial.params[key] for key in space}
    return {k: v if isinstance(v, str) else format_number(v) for k, v in values.items()}


def report_trial(tuned: optuna.Study, trial: optuna.Trial, ended: Sequence[Outcome]) -> None:
    """Report to Optuna how a trial's runs ended.

    Args:
        tuned: Optuna's study.
        trial: that has ended.
        ended: the outcomes of its runs, one for each combination of crossed axes.
    """
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    statuses = {outcome.status for outcome in ended}
    describe_trial(trial, ended)
    sign = 1
    if tuned.direction == StudyDirection.MAXIMIZE:  # outcomes are turned so that less is better
        sign = -1
    stops = [outcome.stop for outcome in ended if outcome.stop is not None]
    epochs = [stop.detail["epoch"] for stop in stops if stop.kind == "halving"]
    mean = sign * math.fsum(outcome.value for outcome in ended) / len(ended)
    curve: dict[int, float] = {}
    # A diverged run's curve is not told: a sampler would take a pruned trial with values for a
    # better one than those that were pruned without.
    if "diverged" not in statuses:
        means = average_curves(ended)
        curve = {e: sign * v for e, v in means.items() if not epochs or e < max(epochs)}
    if epochs and math.isfinite(mean):
        curve[max(epochs)] = mean
    told = tuned.get_trials(deepcopy=False)[trial.number].intermediate_values
    for epoch in sorted(set(curve) - set(told)):  # a launch that was killed has told some
        trial.report(curve[epoch], epoch)
    if statuses == {"finished"} and not epochs and math.isfinite(mean):
        tuned.tell(trial, mean, skip_if_finished=True)
    elif epochs or "diverged" in statuses:
        tuned.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    else:
        tuned.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


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
