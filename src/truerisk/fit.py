"""One run, from configuration to summary."""

from __future__ import annotations

import ctypes
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from truerisk.core.atomic_files import DAMAGED, NO_ROOM, describe_file_error
from truerisk.core.checks import parse_duration
from truerisk.core.errors import ConfigError, Interrupted, UserError, list_own_lines, read_message
from truerisk.core.python_objects import read_parts
from truerisk.core.stop import Stop
from truerisk.core.yaml_files import format_yaml
from truerisk.lengthen import Lengthening, read_lengthening
from truerisk.result import RunResult, load_checkpoint
from truerisk.run import RunFolder, rank
from truerisk.task import get_task

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import nn

    from truerisk.data import DataModule
    from truerisk.engine.risk_module import RiskModule
    from truerisk.recipe import Recipe


def train(
    config: DictConfig | Sequence[str] = (),
    *,
    config_dir: str | None = None,
    folder: str | Path | None = None,
    callbacks: Callback | Sequence[Callback] | Mapping[str, Callback] = (),
    model: nn.Module | None = None,
    data: Any = None,
    metrics: Any = (),
) -> RunResult:
    """Train a recipe: a composed configuration, or overrides as on the command line.

    ``truerisk.train(["model=cnn1d", "optimizer.lr=0.01"])`` runs what
    ``truerisk train model=cnn1d optimizer.lr=0.01`` runs.

    Args:
        config: a composed configuration, or overrides.
        config_dir: a folder of your own options.
        folder: where the run writes; by default a fresh one below ``outputs/``.
        callbacks: a Lightning callback, or several, perhaps by name, that look at the run beside
            those under ``diagnostics``.
        model: a module to train a copy of, in place of ``model=NAME``.
        data: samples, in place of ``data=NAME``: (x, y), which is split; (x_train, y_train, x_val,
            y_val), perhaps with x_test and y_test; a Dataset, or a pair or three of them; a
            LightningDataModule; or a DataFrame, whose target ``data.source.target=COLUMN`` names
            and which has the other keys of ``data=table``. They are read once.
        metrics: an object of torchmetrics or `truerisk.metric.Metric`, or several, to measure
            copies of beside those under ``metric``, perhaps by name; else ``MulticlassF1Score`` is
            called ``multiclass_f1score``.

    Returns:
        The run's folder, read back.

    Raises:
        ConfigError: the configuration asks for something that cannot work.
    """
    from truerisk.config.compose import compose, expand_resume
    from truerisk.core.python_objects import list_parts, offer_objects

    if isinstance(config, str):
        raise ConfigError(f"train takes a list of overrides, as in train([{config!r}])")
    objects = read_objects(model, data, metrics)
    if isinstance(config, DictConfig):
        cfg = config
    else:
        refuse_hydra(config)
        check_overrides(config, objects)
        options = choose_options(objects)
        if any(text.lstrip("+").startswith("resume=") for text in config):
            options = []
        cfg = compose([*options, *expand_resume(config)], config_dir)
        if cfg.study is not None and folder is None:
            raise ConfigError("study= is the command line's; here folder= says where a run goes")
    if objects and not cfg.get("resume"):
        cfg = describe_objects(cfg, objects)
    with offer_objects(objects):
        where = None if folder is None else Path(folder)
        result = train_config(cfg, where, list_parts(callbacks))
    result.objects = objects
    return result


def choose_options(objects: Mapping[str, Any]) -> list[str]:
    """Return the overrides that what was given from Python begins with."""
    return [f"data={objects['data'].option}"] if "data" in objects else []


def read_objects(
    model: Any,
    data: Any,
    metrics: Any = (),
    callbacks: Any = (),
) -> dict[str, Any]:
    """Look at what was given from Python.

    Args:
        model: a module, or None.
        data: samples, or None.
        metrics: objects, perhaps by name.
        callbacks: Lightning callbacks, perhaps by name.

    Returns:
        A `GivenModel`, `GivenData` or `GivenFrame` and `GivenPart`, by where they stand in a
        configuration.

    Raises:
        ConfigError: they are of no kind that can be trained.
    """
    objects: dict[str, Any] = {}
    if model is not None:
        from truerisk.model.given_model import read_model

        objects["model"] = read_model(model)
    if data is not None:
        from truerisk.data.given_samples import read_data

        objects["data"] = read_data(data)
    return {**objects, **read_parts("metric", metrics), **read_parts("diagnostics", callbacks)}


def check_overrides(overrides: Sequence[str], objects: Mapping[str, Any]) -> None:
    """Refuse overrides of what was given from Python instead.

    Args:
        overrides: as on the command line.
        objects: see `read_objects`.

    Raises:
        ConfigError: an override would have no effect.
    """
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if key in objects or (key.startswith("model.") and "model" in objects):
            group = key.partition(".")[0]
            raise ConfigError(
                f"{text} has no effect beside {group}=, given from Python: leave it out"
            )


def refuse_hydra(overrides: Sequence[str]) -> None:
    """Refuse overrides of Hydra's own, which no job of Hydra's would heed.

    Args:
        overrides: as on the command line.

    Raises:
        ConfigError: there is one.

    >>> refuse_hydra(["seed=1", "hydra.run.dir=here"])
    Traceback (most recent call last):
    truerisk.core.errors.ConfigError: hydra.run.dir=here is heeded on the command line; train(…, \
folder=…) says where a run goes
    """
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if re.split("[./]", key)[0] == "hydra":
            remedy = "sweep([…]) makes many runs"
            if key == "hydra.run.dir":
                remedy = "train(…, folder=…) says where a run goes"
            raise ConfigError(f"{text} is heeded on the command line; {remedy}")


def describe_objects(cfg: DictConfig, objects: Mapping[str, Any]) -> DictConfig:
    """Put a description in the place of what was given from Python.

    Args:
        cfg: a composed configuration, which is left as it is.
        objects: see `read_objects`.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    if "model" in objects:
        cfg.model = objects["model"].describe()
        cfg.choices.model = objects["model"].class_path.rpartition(".")[2].lower()
    if "data" in objects:
        cfg.data.source = objects["data"].describe(cfg.data.get("source") or {})
        cfg.choices.data = "given"
    for key in (key for key in objects if "." in key):
        if OmegaConf.select(cfg, key) is not None:
            raise ConfigError(f"{key} is there twice: leave one out, or give yours by another name")
        OmegaConf.update(cfg, key, objects[key].describe(), force_add=True)
    OmegaConf.set_struct(cfg, True)
    return cfg


def build_module(
    config: DictConfig | Sequence[str] = (), *, config_dir: str | None = None
) -> tuple[RiskModule, DataModule]:
    """Build a recipe for a Trainer of your own: a LightningModule and its data.

    ``Trainer(max_epochs=5).fit(module, datamodule=data)`` then trains it.

    Args:
        config: a composed configuration, or overrides as on the command line; what it says of
            ``trainer``, ``logger`` and ``diagnostics`` is the Trainer's to say.
        config_dir: a folder of your own options.

    Returns:
        The module, at its initial weights, and the data, loaded and split.

    Raises:
        ConfigError: the configuration asks for something that cannot work.
    """
    from truerisk.assemble import assemble
    from truerisk.config.check import check_config
    from truerisk.config.compose import compose, resolve_config
    from truerisk.engine.risk_module import RiskModule

    if isinstance(config, str):
        raise ConfigError(f"build_module takes a list of overrides, as in ([{config!r}])")
    if not isinstance(config, DictConfig):
        refuse_hydra(config)
        config = compose(config, config_dir)
    check_config(config)
    module = RiskModule(assemble(config), resolve_config(config))
    return module, module.own_data


def train_config(
    cfg: DictConfig, folder: Path | None = None, callbacks: Sequence[Callback] = ()
) -> RunResult:
    """Run a composed configuration, or go on with the run that its ``resume`` names.

    Args:
        cfg: the configuration.
        folder: where a new run writes; by default a fresh one below ``outputs/``.
        callbacks: Lightning callbacks beside those of the configuration.
    """
    from truerisk.engine.peers import run_with_peers

    run = RunFolder(cfg.get("resume") or folder or _fresh_folder())
    with run_with_peers(read_trainer(cfg)) as peers:
        if peers is not None:
            if not peers.join_run():
                return RunResult(run.path)
            run = RunFolder(peers.told.get("folder", run.path))
            peers.name_folder(str(run.path))
        return _train_in(run, cfg, callbacks)


def read_trainer(cfg: DictConfig) -> DictConfig:
    """Return the ``trainer`` node of a run: that of its own file, where it is to go on."""
    run = RunFolder(cfg.get("resume") or "")
    if cfg.get("resume") and run.config.exists():
        cfg = run.load_config()
    trainer: DictConfig = cfg.trainer
    return trainer


def _train_in(run: RunFolder, cfg: DictConfig, callbacks: Sequence[Callback]) -> RunResult:
    """Begin a run in its folder, or go on with it."""
    from truerisk.config.check import check_config

    resumed, longer = bool(cfg.get("resume")), None
    if resumed:
        lost = False
        if rank() == 0:
            run.reopen()
            lost = run.repair()
        longer = read_lengthening(cfg, run)
        stored = run.load_config()
        if run.status().get("status") == "finished" and longer is None and not lost:
            print(
                f"the run in {run.path} has finished; there is nothing left to do "
                "(trainer.max_epochs=… beside resume lengthens it)"
            )
            return RunResult(run.path)
        # the run's own file rather than the command line: it goes on as it was configured
        cfg = stored if longer is None else longer.config
        resumed = run.begun
    check_config(cfg)
    with quiet(), refusing_full_disk(run):
        return _execute(cfg, run, resumed, callbacks=callbacks, longer=longer)


def train_cell(cfg: DictConfig, folder: Path, facts: Mapping[str, Any] | None = None) -> RunResult:
    """Begin a run in ``folder``; where one was cut off, go on with it.

    It goes on as ``cfg`` has it now: loggers and threads may have changed in between.
    ``facts`` join the run's metadata.
    """
    from truerisk.config.check import check_config
    from truerisk.engine.peers import run_with_peers

    run = RunFolder(folder)
    with run_with_peers(cfg.trainer) as peers:
        if peers is not None:
            peers.name_folder(str(run.path))
        resumed = run.begun
        check_config(cfg)
        with quiet(), refusing_full_disk(run):
            if resumed and rank() == 0:
                run.repair(format_yaml(cfg))
                run.reopen()
            return _execute(cfg, run, resumed, facts, once=True)


def _fresh_folder() -> Path:
    return Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}"


@contextmanager
def refusing_full_disk(run: RunFolder) -> Iterator[None]:
    """Tell in one line which file there is no room for."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        reason = describe_file_error(error, run.path)
        raise UserError(f"{reason}: make room, then go on with resume={run.path}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Advice of libraries that does not hold here is kept from the screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*srun.*is available on your system.*")
        warnings.filterwarnings("ignore", message=".*create_graph=True.*")  # Step breaks the cycle
        yield


def _execute(
    cfg: DictConfig,
    run: RunFolder,
    resumed: bool,
    more: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    once: bool = False,
    longer: Lengthening | None = None,
) -> RunResult:
    """Assemble, train, measure and describe; the folder tells at every moment how it stands."""
    from truerisk.assemble import assemble
    from truerisk.config.compose import resolve_config
    from truerisk.config.contents import hash_contents
    from truerisk.core import rng, threads
    from truerisk.engine.host import wait_for_all
    from truerisk.show.console import print_notes

    # before the data is read, so that an edit meanwhile is one
    contents = hash_contents(resolve_config(cfg))
    recipe = assemble(cfg)
    print_notes(recipe.data.notes, once)
    first, count, before = rank() == 0, _threads(cfg, recipe), {}
    if resumed:
        before = run.status() or {"status": "failed"}
    if longer is not None:
        longer.check_recipe(recipe)
        if first:
            longer.apply()
        recipe = assemble(cfg)  # anew, as the check has moved its parts
    facts = {"threads": count, **recipe.facts(), "contents": contents, **(more or {})}
    if first:
        if resumed:
            run.set_status("running", "resumed")
            run.write_facts(facts)
            run.note_contents(contents)
            if not run.last.exists():
                lost = f"no checkpoint: the run starts anew{put_aside(run)}"
                print(f"{run.path} has {lost}", file=sys.stderr)
        else:
            run.create(format_yaml(cfg), facts)
    result = RunResult(run.path)

    @cache
    def draw_once() -> None:
        from truerisk.show.figure import draw_result

        # what training has freed, or the peak of memory would be both at once
        _return_freed_memory()
        draw_result(result, cfg)

    def draw(seen: bool = True) -> None:
        if run.wants_figures(cfg.get("figures"), seen):
            draw_once()

    with ExitStack() as stack:
        if first:
            stack.enter_context(_told(run, before))
        stack.enter_context(threads.limit_threads(count))
        stack.enter_context(rng.fork_seeded(recipe.streams.noise + rank()))
        status, stop = _fit(cfg, run, recipe, resumed, callbacks, draw, longer, once)
        if first:
            # before the status: a run that counts as finished has its figures
            try:
                draw(seen=not once)
            except OSError as error:  # all is measured, and truerisk draw makes them later
                print(f"no figures: {describe_file_error(error, run.path)}", file=sys.stderr)
            run.set_status(status, stop=stop)
        # The others read from the folder how the run ended, and exit by that: a process that exits
        # with an error is taken for a reason to kill the rest.
        wait_for_all()
    return result


def put_aside(run: RunFolder) -> str:
    """Put aside what a run without a checkpoint had measured; say so, where it is something."""
    from truerisk.logger.history import read_rows, row_step

    try:
        steps = [row_step(row) for row in read_rows(run.metrics)]
    except ValueError:
        steps = [1]
    kept = ""
    if max(steps, default=0) > 0:
        aside = run.metrics.with_name("metrics-before.csv")
        run.metrics.replace(aside)
        kept = f"; what it had measured is kept in {aside.name}"
    if run.best.exists():  # there was one
        kept += f"; {run.last.name} is lost"
        DAMAGED.append(run.last)
    return kept


@contextmanager
def _told(run: RunFolder, before: Mapping[str, Any]) -> Iterator[None]:
    """The folder tells the truth of a run that breaks off; one refused at its start is undone."""
    from truerisk.engine.peers import find_fault

    try:
        yield
    except KeyboardInterrupt:
        run.set_status("interrupted", "SIGINT")
        raise
    except SystemExit as error:
        ending = "interrupted", "asked to exit"
        if list_own_lines(error):
            ending = "failed", traceback.format_exc()
        run.set_status(*ending)
        raise
    except UserError as error:
        if before:
            run.set_status(before["status"], before.get("reason", ""))
        elif run.last.exists():
            run.set_status("failed", str(error))
        else:
            run.discard()
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            run.set_status("failed", traceback.format_exc())
            raise
        with suppress(OSError):  # there may be no room for it either
            run.set_status("failed", describe_file_error(error, run.path))
        raise
    except BaseException as error:
        run.set_status("failed", find_fault(error) or traceback.format_exc())
        raise


def _threads(cfg: DictConfig, recipe: Recipe) -> int:
    from truerisk.assemble import first_inputs
    from truerisk.core import threads

    if cfg.threads != "auto":
        return cfg.threads
    return threads.choose_threads(recipe.model, first_inputs(recipe.data, recipe.data.batch_size))


def _return_freed_memory() -> None:
    """Give freed memory back to the system, where the C library keeps it (glibc's does)."""
    # other systems' libraries have no such function, and Windows none without a name
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _fit(
    cfg: DictConfig,
    run: RunFolder,
    recipe: Recipe,
    resumed: bool,
    given: Sequence[Callback] = (),
    draw: Callable[[], None] = lambda: None,
    longer: Lengthening | None = None,
    once: bool = False,
) -> tuple[str, Stop | None]:
    """Train and measure; return the run's status and why it ended before its time."""
    from truerisk.assemble import build_diagnostics, build_loggers
    from truerisk.config.compose import resolve_config
    from truerisk.diagnostics.observer import make_observers
    from truerisk.engine.callback_rules import (
        describe_uncalled,
        find_reason,
        refuse_callbacks,
        shows_progress,
    )
    from truerisk.engine.host import choose_host, spans_processes
    from truerisk.engine.lightning import ModelBackend
    from truerisk.engine.loop import Observer, TrainingLoop
    from truerisk.engine.recorder import Recorder
    from truerisk.engine.signals import on_stop
    from truerisk.engine.stopping import make_stop_rules
    from truerisk.engine.trail import make_trajectory_loggers
    from truerisk.show.console import print_notes
    from truerisk.show.progress_line import Progress

    config = resolve_config(cfg)
    built = build_diagnostics(cfg)
    callbacks = [*select_callbacks(built, recipe), *given]
    refuse_callbacks(callbacks, hosted=True)
    for line in describe_uncalled(callbacks):
        print(line, file=sys.stderr)
    hosted = find_reason(callbacks, config["trainer"])
    if hosted and recipe.data.weights and recipe.data.sampler != "weighted":
        raise ConfigError(
            f"{hosted} sees batches of inputs and targets, which carry no data.source.weight: "
            "leave it out, or set data.sampler=weighted"
        )
    if hosted and spans_processes(config["trainer"]):
        raise ConfigError(f"{hosted} looks at a run in one process: set trainer.devices=1")
    checkpoint = load_checkpoint(run.last) if resumed and run.last.exists() else None
    if longer is not None and checkpoint is not None:
        longer.reopen_checkpoint(checkpoint)
    step = checkpoint["truerisk"]["step"]["count"] if checkpoint else -1
    with refusing_trainer():
        host = choose_host(build_strategy(cfg.trainer))
    loggers = []
    if host.rank == 0:
        where = {"folder": run.path, "run_id": run.id, "resume_step": step if resumed else None}
        loggers = build_loggers(cfg, **where)
    recorder = Recorder(run, config, loggers, writes=host.rank == 0, draw=draw)
    limits = cfg.trainer.max_epochs, cfg.trainer.max_steps
    with host.place.default_dtype():
        module = None
        if hosted:
            from truerisk.engine import trainer_host

            module = trainer_host.HostedModule(recipe, config)
        backend = ModelBackend(recipe, host, limits, recorder, module)
        print_notes(backend.run.schedule.notices, once, warn=True)
        backend.run.rules = make_stop_rules(recipe, config, run.path, host)
        watching = make_observers(built, backend)
        shown = get_task(recipe.data.info.task).progress
        progress = Progress(not shows_progress(callbacks, config["trainer"]), shown)
        observers: list[Observer] = [progress, *make_trajectory_loggers(recipe.model)]
        observers += watching
        ended: list[str] = []
        options: dict[str, Any] = {
            "checkpoint_seconds": cfg.checkpoint_seconds,
            "on_finish": lambda _run, status: ended.append(status),
            "deadline": parse_duration("trainer.max_time", config["trainer"].get("max_time")),
        }
        loop = TrainingLoop(backend, observers, **options)
        if hosted:
            loop = trainer_host.HostedLoop(backend, observers, **options)
            backend.run.rules += [trainer_host.CallbackState(c) for c in callbacks]
        if checkpoint is not None:
            backend.restore(checkpoint)
        try:
            with on_stop(loop.request_stop), torch_flags(cfg.trainer):
                if hosted:
                    trainer_host.host_run(loop, callbacks, config["trainer"])
                else:
                    loop.train()
        # A second Ctrl-C ends what hangs; the run was asked to stop and stands as it was saved.
        except (Interrupted, KeyboardInterrupt):
            if not loop.stop_requested:
                raise
            return "interrupted", Stop(
                "signal", backend.run.state.step, {"name": loop.stop_requested}
            )
    return ended[0], backend.run.state.stop


def select_callbacks(built: Mapping[str, Any], recipe: Recipe) -> list[Callback]:
    """Return the Lightning callbacks of a run: among its diagnostics, and of its regularizers.

    Args:
        built: what ``diagnostics`` names, by its names there.
        recipe: the run's parts.

    Raises:
        ConfigError: something under ``diagnostics`` is neither a diagnostic nor a callback.
    """
    from truerisk.diagnostics import Diagnostic

    others = {name: one for name, one in built.items() if not isinstance(one, Diagnostic)}
    for name, one in others.items():
        from lightning.pytorch import Callback

        if not isinstance(one, Callback):
            raise ConfigError(
                f"diagnostics.{name}: {type(one).__name__} is neither a truerisk.diagnostics."
                "Diagnostic nor a Lightning callback"
            )
    regularizers = recipe.regularizers.values()
    return [*others.values(), *(c for r in regularizers for c in r.callbacks())]


@contextmanager
def refusing_trainer() -> Iterator[None]:
    """Turn what Lightning says of its arguments into an error of the configuration."""
    try:
        yield
    except Exception as error:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        if not isinstance(error, MisconfigurationException | ValueError):
            raise
        raise ConfigError(f"trainer: {read_message(error)}") from error


def build_strategy(trainer: DictConfig) -> dict[str, Any]:
    """Return the ``trainer`` node in plain containers, its strategy built."""
    from truerisk.assemble import build, plain

    node = plain(trainer)
    if isinstance(node.get("strategy"), dict):
        node["strategy"] = build(trainer.strategy)
    return node


@contextmanager
def torch_flags(trainer: DictConfig) -> Iterator[None]:
    """Set what ``trainer`` asks of torch itself inside the block."""
    import torch

    with torch.autograd.set_detect_anomaly(bool(trainer.get("detect_anomaly", False))):
        yield
