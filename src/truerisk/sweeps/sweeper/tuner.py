"""Tuning by Optuna: where to look next follows from what was found."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.data.files import first_line
from truerisk.outcome import Outcome
from truerisk.sweeps.sweep_cell import IGNORED
from truerisk.sweeps.sweeper import Batches
from truerisk.sweeps.sweeper.axis import (
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


class Tuner:
    """Minimises the validation risk, averaged over the values of crossed axes.

    Trials are kept in a database: the same command given again takes up those that were cut off
    and goes on to ``trials`` in all, and several launches share them. Trials that diverge, or that
    successive halving (``halving``) stops, count as pruned; those that fail count for nothing.

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
            raise ConfigError(f"hydra.sweeper.sampler={sampler}: {suggest(sampler, SAMPLERS)}")
        self.params, self.sampler, self.storage = params or {}, sampler, storage
        self.trials = check_int("hydra.sweeper.trials", trials)
        self.batch = check_int("hydra.sweeper.batch", batch)
        self.startup, self.seed, self.crossed = startup, seed, crossed

    def batches(self, overrides: Sequence[Override], study: StudyFolder) -> Batches:
        """A batch of trials after another, until there are enough.

        Raises:
            ConfigError: there is nothing to tune, or the storage cannot be opened.
        """
        found = split_axes(overrides, self.crossed)
        if not found.searched:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to tune: give an axis, as in "
                "'optimizer.lr=tag(log,interval(1e-4,1))'"
            )
        space = {key: to_optuna_distribution(override) for key, override in found.searched.items()}
        tuned, left = self._open(found, study), set[int]()
        while trials := self._next(tuned, space, left):
            lists = [found.points(_chosen(trial, space)) for trial in trials]
            ended = iter((yield [point for points in lists for point in points]))
            for trial, points in zip(trials, lists, strict=True):
                if not report_trial(tuned, trial, [next(ended) for _ in points]):
                    left.add(trial.number)

    def _open(self, found: SweepAxes, study: StudyFolder) -> optuna.Study:
        import optuna
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study.folder.mkdir(parents=True, exist_ok=True)
        where = self.storage or f"sqlite:///{study.folder / 'optuna.db'}"
        name = f"{study.folder.name}-{_problem(found)}"
        try:
            storage = _storage(where)
            return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        except (OptunaError, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.storage={where}: {first_line(error)}") from error

    def _next(
        self, tuned: optuna.Study, space: Mapping[str, Any], left: set[int]
    ) -> list[optuna.Trial]:
        """Trials that were cut off, then new ones; not those in other hands."""
        import optuna

        running = (optuna.trial.TrialState.RUNNING,)
        before = tuned.get_trials(deepcopy=False)
        cut = [t for t in before if t.state in running and t.number not in left][: self.batch]
        new = min(self.batch - len(cut), self.trials - len(before))
        tuned.sampler = self._sampler(self.seed + len(before))
        asked = [tuned.ask(dict(space)) for _ in range(new)]
        return [optuna.trial.Trial(tuned, t._trial_id) for t in cut] + asked

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna import samplers

        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        if self.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=self.startup)
        if self.sampler == "cmaes":
            size = max(self.batch, 4) if self.batch > 1 else None
            return samplers.CmaEsSampler(seed=seed, popsize=size)
        if self.sampler == "qmc":
            return samplers.QMCSampler(seed=self.seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)


def _storage(where: str) -> Any:
    """A log that machines share, or the URL of a database."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(where)) if where.endswith(".log") else where


def _problem(found: SweepAxes) -> str:
    """What is tuned, in eight digits: another recipe or space has trials of its own."""
    kept = {k: v for k, v in found.fixed.items() if re.split(r"[./]", k)[0] not in IGNORED}
    asked = {key: format_axis(override) for key, override in found.searched.items()}
    whole_text = repr(sorted((kept | asked | found.crossed).items(), key=str))
    return hashlib.sha256(whole_text.encode()).hexdigest()[:8]


def to_optuna_distribution(override: Override) -> Any:
    """An axis as Optuna has it.

    Raises:
        ConfigError: it is a distribution that Optuna has not.
    """
    from optuna import distributions

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = interval_bounds(value)
        kind = "Int" if isinstance(high, int) else "Float"
        return getattr(distributions, f"{kind}Distribution")(low, high, log="log" in value.tags)
    if "drawn" in getattr(value, "tags", ()):
        name, numbers = parse_distribution(override)
        if name != "loguniform" or len(numbers) != 2:
            raise ConfigError(
                f"{format_axis(override)}: optuna searches interval(a,b), tag(log,interval(a,b)), "
                "loguniform(a,b) and lists of values"
            )
        low, high = map(float, numbers)
        return distributions.FloatDistribution(low, high, log=True)
    return distributions.CategoricalDistribution(list_values(override))


def _chosen(trial: optuna.Trial, space: Mapping[str, Any]) -> dict[str, str]:
    params = trial.params
    return {key: v if isinstance(v := params[key], str) else format_number(v) for key in space}


def report_trial(tuned: optuna.Study, trial: optuna.Trial, ended: Sequence[Outcome]) -> bool:
    """Report how a trial's runs ended; False where some of them are in other hands."""
    from optuna.trial import TrialState

    statuses = {outcome.status for outcome in ended}
    if "elsewhere" in statuses:
        return False
    stops = [m for o in ended if (m := re.match(r"successive halving: at epoch (\d+)", o.reason))]
    mean = math.fsum(outcome.value for outcome in ended) / len(ended)
    if stops and math.isfinite(mean):
        trial.report(mean, max(int(stop[1]) for stop in stops))
    if statuses == {"finished"} and not stops and math.isfinite(mean):
        tuned.tell(trial, mean, skip_if_finished=True)
    else:
        pruned = bool(stops) or "diverged" in statuses
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        tuned.tell(trial, state=state, skip_if_finished=True)
    return True
