"""Weights & Biases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from truerisk.core.errors import ConfigError, describe_error, suggest
from truerisk.logger.label import (
    LONGEST_TAG,
    best_epoch,
    describe_recipe,
    find_study,
    flatten_summary,
    recipe_name,
    recipe_tags,
    seed_tags,
)

MODES = ("auto", "online", "offline", "disabled")
BY_EPOCH = ("risk/*", "error/*", "metric/*", "lr/*", "grad_norm", "distance")
"""What is measured after an epoch, by name."""
PASSING = ("objective", "penalty", "penalty/*", "batch/*")
"""What tells of training: at the last epoch it says nothing of the weights that are kept."""


def resolve_mode(mode: str) -> str:
    """Decide what ``auto`` means: the user's own setting, else online if logged in, else offline.

    Looks at the environment, W&B's settings files and the netrc file; asks neither the network nor
    the user.
    """
    if mode != "auto":
        return mode
    import wandb

    environment = os.environ.get("WANDB_MODE")
    if environment:
        return environment
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    # "online" is W&B's default too, and says nothing about an account
    if settings.mode not in (None, "online"):
        return str(settings.mode)
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


class WandB(WandbLogger):
    """Lightning's W&B logger for one run folder.

    The run starts with the id ``run_id`` and ``resume="allow"``, so that a resumed run goes on with
    the same one. W&B's step is the optimizer step; its charts of what is measured after an epoch
    have the epoch below them. ``finalize`` ends the run with exit code 0 or 1; metrics that come
    after it open the run again.

    At the end W&B's summary is that of summary.json: values and standard errors at the best
    weights, and their ``epoch``. Of what only the last epoch had (the objective, the running loss)
    it holds nothing.

    Args:
        folder: the run's folder; W&B's files go into ``folder/wandb``.
        run_id: the run's id, here and at W&B.
        config: the run's resolved config, stored whole.
        project: W&B's project.
        entity: W&B's user or team; None takes the account's default.
        name: the run's name; None makes one from the recipe and the folder.
        group: runs shown together; None groups the cells of a study, and other runs by data, model
            and optimizer.
        tags: further ones, beside the names of the recipe's parts and the seed.
        notes: about the run, as W&B shows them.
        mode: auto, online, offline or disabled; see `resolve_mode`.
        media: whether W&B gets the figures, and a table of what was measured at the best weights.
        artifact: whether it gets the best weights, as an artifact of type ``model``.

    Raises:
        ConfigError: an unknown mode.
    """

    def __init__(
        self,
        folder: str | Path,
        run_id: str,
        config: Mapping[str, Any] | None = None,
        project: str = "truerisk",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        mode: str = "auto",
        media: bool = True,
        artifact: bool = False,
    ) -> None:
        import wandb

        if mode not in MODES:
            raise ConfigError(f"logger.wandb.mode={mode!r}: {suggest(str(mode), MODES)}")
        config, folder = dict(config or {}), Path(folder).absolute()
        named = [*recipe_tags(config), *seed_tags(config), *(tags or ())]
        super().__init__(
            name=name or f"{recipe_name(config)} {folder.name}",
            save_dir=folder,
            id=run_id,
            project=project,
            entity=entity,
            group=group or find_study(folder) or recipe_name(config),
            job_type=describe_recipe(config, folder)[:LONGEST_TAG],
            tags=[str(tag)[:LONGEST_TAG] for tag in dict.fromkeys(named)],
            notes=notes,
            config=config,
            # several runs may be open in one process; W&B's own default would merge them
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._folder, self._mode, self._lost = folder, mode, False
        self.shows_figures, self._artifact = media, artifact
        # Lightning passes it, and newer versions of W&B warn of it
        self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, started when it is first asked for."""
        import wandb

        if self._experiment is None and self._adopts_run():
            started: Any = wandb.run
            started.config.update(self._wandb_init["config"], allow_val_change=True)
            self._experiment = started
            self._define_metrics(self._experiment)
        if self._experiment is None:
            Path(self._wandb_init["dir"]).mkdir(parents=True, exist_ok=True)
            self._wandb_init["mode"] = resolve_mode(self._mode)
            self._experiment = wandb.init(**self._wandb_init)
            self._define_metrics(self._experiment)
        return self._experiment

    @staticmethod
    def _adopts_run() -> bool:
        """Tell whether a sweep's agent has started a run already: a second would leave it empty."""
        import wandb

        return wandb.run is not None and bool(getattr(wandb.run, "sweep_id", None))

    @staticmethod
    def _define_metrics(run: Any) -> None:
        """Tell W&B what stands below a chart, and of what its summary holds nothing."""
        run.define_metric("epoch")
        for name in BY_EPOCH:
            run.define_metric(name, step_metric="epoch")
        for name in PASSING:
            run.define_metric(name, step_metric="epoch", summary="none")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics.

        Args:
            metrics: values by name.
            step: the optimizer step; None is W&B's next one.
        """
        if self._lost:
            return
        run = self.experiment
        with self._tolerating_outage():
            # W&B drops what is logged at a step before its last one: that goes to the summary
            if step is not None and step < run.step:
                run.summary.update(dict(metrics))
            else:
                run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_summary(self, summary: Mapping[str, Any], status: str) -> None:
        """Make W&B's summary that of summary.json, and show the figures and the table.

        Args:
            summary: measured numbers by name.
            status: how the run ended.
        """
        if self._lost:
            return
        run = self.experiment
        with self._tolerating_outage():
            values: dict[str, Any] = {**flatten_summary(summary), "status": status}
            if (epoch := best_epoch(summary)) is not None:
                values["epoch"] = epoch
            media = self._make_media(summary) if self.shows_figures else {}
            # committed now: W&B holds the last step back, and its values would come after ours
            run.log(media, step=run.step, commit=True)
            weights = self._folder / "checkpoints" / "best.ckpt"
            if self._artifact and weights.exists():
                self._log_weights(run, weights, values)
            # last, as whatever is logged changes the summary too
            run.summary.update(values)

    def _make_media(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        import wandb

        rows = [[name, *m] for name, m in summary.items()]
        columns = ["name", *next(iter(summary.values()))._fields] if rows else []
        media: dict[str, Any] = {}
        if rows:
            media["summary"] = wandb.Table(columns, rows)
        for file in sorted((self._folder / "figures").glob("*.png")):
            media[f"figures/{file.stem}"] = wandb.Image(str(file))
        return media

    def _log_weights(self, run: Any, weights: Path, values: Mapping[str, Any]) -> None:
        import wandb

        artifact = wandb.Artifact(f"truerisk-{run.id}", type="model", metadata=dict(values))
        for file in (weights, self._folder / "config.yaml", self._folder / "metadata.json"):
            artifact.add_file(str(file), file.name)
        run.log_artifact(artifact)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run: exit code 1 if ``status`` is "failed", else 0."""
        if self._experiment is not None and not self._lost:
            with self._tolerating_outage():
                super().finalize(status)
                if not self._adopts_run():  # else it is the agent's to end
                    self._experiment.finish(exit_code=int(status == "failed"))
        self._experiment = None

    @contextmanager
    def _tolerating_outage(self) -> Iterator[None]:
        """Go on without W&B if its service process has ended.

        A cluster that stops a job sends SIGTERM to every process of it, that one among them.
        """
        import wandb
        from wandb.sdk.mailbox import MailboxClosedError

        try:
            yield
        except (ConnectionError, MailboxClosedError) as error:
            self._lost = True
            with suppress(ConnectionError, MailboxClosedError):
                wandb.teardown()  # or it would fail as the process exits
            reason = describe_error(error)
            print(f"W&B is out of reach ({reason}); metrics.csv goes on", file=sys.stderr)
