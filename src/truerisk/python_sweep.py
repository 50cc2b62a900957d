"""A sweep from Python: of options by name, and of a model and samples that are given as objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from truerisk.config.cell_composer import CellComposer, ComposedCell
from truerisk.config.compose import ConfigLoader, hydra_session, quote_override
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError
from truerisk.core.python_objects import offer_objects
from truerisk.launch import expand_overrides, train_job
from truerisk.outcome import Outcome
from truerisk.result import RunResult
from truerisk.run import RunFolder
from truerisk.sweeps.sweep import Sweep, is_own_sweeper

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from pandas import DataFrame


class GivenComposer:
    """Composes cells, with a description in the place of what was given from Python.

    Args:
        compose: composes them without.
        objects: what was given, see `truerisk.fit.read_objects`.
    """

    def __init__(self, compose: CellComposer, objects: Mapping[str, Any]) -> None:
        self.compose, self.objects = compose, objects

    def compose_ahead(self, points: Sequence[Sequence[str]]) -> None:
        """Compose what cells share, see `CellComposer.compose_ahead`."""
        self.compose.compose_ahead(points)

    def __call__(self, overrides: Sequence[str]) -> ComposedCell:
        """Compose one cell."""
        from truerisk.fit import describe_objects

        cell = self.compose(overrides)
        described = describe_objects(OmegaConf.create(cell.config), self.objects)
        config: Any = OmegaConf.to_container(described, resolve=True)
        return cell._replace(config=config)


@dataclass
class SweepResult:
    """The runs of a sweep.

    Attributes:
        folder: of the study.
        outcomes: how each cell ended, in the order of the sweep.
        objects: ``model`` and ``data``, where they were given from Python.
    """

    folder: Path
    outcomes: list[Outcome]
    objects: Mapping[str, Any]

    @cached_property
    def runs(self) -> list[RunResult]:
        """The runs that have begun, in the order of the sweep."""
        runs = []
        for outcome in self.outcomes:
            if outcome.folder is not None and RunFolder(outcome.folder).begun:
                run = RunResult(outcome.folder)
                run.objects = self.objects
                runs.append(run)
        return runs

    @property
    def best(self) -> RunResult:
        """The run with the lowest validation risk, or with the best of what ``monitor`` names.

        Raises:
            ConfigError: none has finished.
        """
        done = [end for end in self.outcomes if end.status == "finished" and end.folder is not None]
        if not done:
            raise ConfigError(f"no run in {self.folder} has finished")
        # an outcome's value is turned so that less is better
        first = min(done, key=lambda end: end.value)
        return next(run for run in self.runs if run.folder == first.folder)

    @cached_property
    def table(self) -> DataFrame:
        """A row a run: what is varied, how it ended, and what it measured with standard errors."""
        import pandas as pd

        from truerisk.logger.label import flatten_config, flatten_summary

        configs = [flatten_config(run.config) for run in self.runs]
        keys = dict.fromkeys(key for config in configs for key in config)
        varied = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
        rows = [
            {key: config.get(key) for key in varied}
            | {"status": run.status, **flatten_summary(run.summary)}
            for run, config in zip(self.runs, configs, strict=True)
        ]
        return pd.DataFrame(rows)

    def report(self) -> Path:
        """Write the page of the study, print its table, and return the page's path."""
        from truerisk.reports.study_report import print_summary, write_report

        written = write_report([self.folder])
        print_summary(written)
        return self.folder / "report"


def sweep(
    overrides: Sequence[str],
    *,
    model: Any = None,
    data: Any = None,
    config_dir: str | None = None,
    folder: str | Path | None = None,
    metrics: Any = (),
    callbacks: Callback | Sequence[Callback] | Mapping[str, Callback] = (),
) -> SweepResult:
    """Train every cell of a sweep: what ``truerisk train -m`` does with the same overrides.

    Given again, it trains what is missing. ``hydra/launcher=vectorized`` and ``pool`` work as on
    the command line; launchers that start other programs cannot be given objects.

    Args:
        overrides: as on the command line; several values, intervals and ranges are swept.
        model: a module to train copies of, in place of ``model=NAME``.
        data: samples, in place of ``data=NAME``; see `truerisk.train`.
        config_dir: a folder of your own options.
        folder: of the study; by default ``outputs/NAME``, named by what is swept.
        metrics: as for `truerisk.train`.
        callbacks: Lightning callbacks, of which each run gets a copy; runs that have some are
            trained one by one.

    Returns:
        The runs, their table, and the best of them.

    Raises:
        ConfigError: the overrides cannot be composed, or not one cell can work.
    """
    from truerisk.fit import check_overrides, choose_options, read_objects

    if isinstance(overrides, str):
        raise ConfigError(f"sweep takes a list of overrides, as in sweep([{overrides!r}])")
    objects = read_objects(model, data, metrics, callbacks)
    check_overrides(overrides, objects)
    options = choose_options(objects)
    where = []
    if folder is not None:
        where = [f"hydra.sweep.dir={quote_override(str(Path(folder).absolute()))}"]
    expanded = expand_overrides([*options, *overrides, *where], multirun=True)
    with hydra_session(), offer_objects(objects):
        loader = ConfigLoader(config_dir)
        shared = loader.load_configuration(PRIMARY, expanded, RunMode.MULTIRUN)
        if not is_own_sweeper(shared.hydra.sweeper):
            raise ConfigError("a sweeper that is a Hydra plugin works on the command line alone")
        planned = Sweep(loader, PRIMARY, expanded, shared)
        if objects:
            compose: Any = GivenComposer(planned.study.compose, objects)
            planned.study = replace(planned.study, compose=compose)
        outcomes = planned.run(train_job)
    result = SweepResult(planned.study.folder, outcomes, objects)
    refused = [outcome.reason for outcome in outcomes if outcome.status == "refused"]
    if refused and len(refused) == len(outcomes):
        raise ConfigError(refused[0])
    return result
