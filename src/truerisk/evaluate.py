"""The risks of a finished run's best weights, on its own splits or on other data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from truerisk.result import RunResult, load_checkpoint, load_run
from truerisk.risk.measured import Measured
from truerisk.run import rank


@dataclass(frozen=True)
class Evaluation:
    """What a run's best weights risk on the data they were shown."""

    run: RunResult
    summary: Mapping[str, Measured]

    def report(self) -> None:
        """Print the table; the first of several processes does."""
        from truerisk.show.console import print_table

        if rank() > 0:
            return
        print_table(self.summary, f"best weights of {self.run.folder}", self.run.task)


def evaluate(
    folder: str | Path, overrides: Sequence[str] = (), config_dir: str | None = None
) -> Evaluation:
    """Measure a run's best weights again, after ``overrides`` of its data, trainer and risk.

    What the run fitted to its training data (standardization, categories) is used as it was, so
    ``data.label_noise=0`` or ``data=arrays data.source.path=new.npz data.test=all`` ask how the
    same predictor does elsewhere.

    Raises:
        ConfigError: there is no such run, it has no weights, or an override cannot work.
    """
    from truerisk.assemble import assemble
    from truerisk.config.check import check_config
    from truerisk.config.compose import override_config, resolve_config
    from truerisk.config.contents import hash_contents, list_changed
    from truerisk.core import rng, threads
    from truerisk.engine.host import choose_host
    from truerisk.engine.lightning import evaluate_model
    from truerisk.fit import build_strategy, quiet, refusing_trainer
    from truerisk.show.console import print_notes

    run = load_run(folder)
    cfg = override_config(run.config, overrides, config_dir)
    if "monitor" in cfg:  # nothing is followed any more, and the metrics may be others
        cfg.monitor = "risk/val"
    check_config(cfg)
    best = load_checkpoint(run.run.best)
    facts = run.run.read_facts()
    for name in list_changed(facts.get("contents", {}), hash_contents(resolve_config(cfg))):
        print(f"{name} has changed since the run was trained", file=sys.stderr)
    recipe = assemble(cfg, best["data"])
    print_notes(recipe.data.notes)
    recipe.model.load_state_dict(best["state"], assign=True)  # in the run's own precision
    count = facts["threads"]  # sums depend on it in their last bits
    with quiet(), threads.limit_threads(count), rng.fork_seeded(recipe.streams.noise):
        with refusing_trainer():
            host = choose_host(build_strategy(cfg.trainer))
        summary = evaluate_model(recipe, host, best.get("epoch"))
    return Evaluation(run, summary)
