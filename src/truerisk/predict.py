"""Tables of predictions: of a run or an ensemble of runs, on their own data or on other data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.core.errors import ConfigError, first_line
from truerisk.result import RunResult, load_checkpoint, load_run

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pandas import DataFrame
    from torch import Tensor

    from truerisk.data import RunData
    from truerisk.predictor import Predictor

SPLITS = ("train", "val", "test")
SUFFIXES = (".csv", ".parquet")


def predict(
    folders: Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    temperature: bool = False,
    config_dir: str | None = None,
) -> DataFrame:
    """Predict with the best weights of a run, or with the mean of several runs.

    Several runs are averaged by their probabilities; where a loss gives none, by their outputs.

    Args:
        folders: of the runs.
        overrides: of ``data`` and ``trainer``. Where they name other samples, all of those are
            predicted, with targets or without.
        split: ``train``, ``val``, ``test`` or ``all``; None for the test set, or for the validation
            set of a run that has none.
        temperature: whether outputs are divided by the number that minimises the negative
            log-likelihood on the runs' validation set (Guo et al. 2017).
        config_dir: a folder of your own options.

    Returns:
        A row a sample: ``row`` and what else tells it apart, ``split``, ``target``, ``prediction``,
        ``probability_CLASS`` and ``loss``; without targets there is neither ``target`` nor
        ``loss``. Its ``attrs`` hold the ``notes`` on how samples were read, the ``temperature``,
        and in ``measured`` by split the mean loss and the share of wrong classes, each with its
        standard error, as `truerisk.evaluate` measures them.

    Raises:
        ConfigError: the runs have nothing in common, or an override cannot work.
    """
    from truerisk.predictor import read_outputs

    runs = [load_run(folder) for folder in folders]
    check_ensemble(runs)
    configs = [choose_samples(run, overrides, split, config_dir) for run in runs]
    if len(runs) > 1 and any(same_samples(r, c) for r, c in zip(runs, configs, strict=True)):
        check_splits(runs)
    members = [open_member(run, cfg) for run, cfg in zip(runs, configs, strict=True)]
    first, data = members[0]
    if any(numbers.ndim > 1 for numbers in data.groups.values()):
        raise ConfigError(
            f"predict: {runs[0].folder} has learned texts, whose sequences hold parts of several "
            "documents and are no rows of a table: truerisk generate continues texts, and truerisk "
            "evaluate measures other ones"
        )
    names = choose_splits(data, split)
    scale = 1.0
    if temperature:
        scale = fit_temperature(runs, members)
    parts, measured = [], {}
    weighted = bool(configs[0].risk.get("weighted"))
    for name in names:
        outputs = average_members(members, name) / scale
        predicted = read_outputs(first, outputs)
        parts.append(tabulate(first, data, name, predicted, list_targets(runs[0].config)))
        measured[name] = measure_table(parts[-1], first, data, name, weighted)
    import pandas as pd

    table = pd.concat(parts, ignore_index=True)
    table.attrs |= {"notes": list(data.notes), "temperature": scale, "measured": measured}
    return table


def choose_samples(
    run: RunResult, overrides: Sequence[str], split: str | None, config_dir: str | None
) -> DictConfig:
    """Return a run's configuration with overrides; samples of another source are all predicted.

    Args:
        run: the run.
        overrides: of data and trainer.
        split: that was asked for; None for none.
        config_dir: a folder of options.
    """
    from truerisk.config.check import check_config
    from truerisk.config.compose import override_config

    cfg = override_config(run.config, overrides, config_dir)
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    if not same_samples(run, cfg) and split is None and "data.test" not in given:
        cfg = override_config(run.config, [*overrides, "data.test=all"], config_dir)
    check_config(cfg)
    return cfg


def same_samples(run: RunResult, cfg: DictConfig) -> bool:
    """Tell whether a configuration has the samples that a run was trained on."""
    return bool(cfg.data.get("source") == run.config.data.get("source"))


def check_ensemble(runs: Sequence[RunResult]) -> None:
    """Refuse runs whose predictions have no mean.

    Raises:
        ConfigError: they differ in their task, classes or loss; or have learned no task at all.
    """
    first = runs[0]
    for run in runs:
        data, mine = run.run.metadata().get("data", {}), first.run.metadata().get("data", {})
        if run.task == "" or "class_names" not in data:
            raise ConfigError(f"predict: {run.folder} was cut off before its data were read")
        for key in ("task", "num_outputs", "class_names"):
            if data[key] != mine[key]:
                raise ConfigError(
                    f"predict: runs of another {key} cannot be averaged: {first.folder} has "
                    f"{mine[key]}, {run.folder} has {data[key]}"
                )
        if run.config.loss._target_ != first.config.loss._target_:
            raise ConfigError(
                "predict: the outputs of runs with other losses cannot be averaged: "
                f"{first.config.loss._target_} in {first.folder}, {run.config.loss._target_} in "
                f"{run.folder}"
            )


def check_splits(runs: Sequence[RunResult]) -> None:
    """Refuse runs that were trained on what is the test set of others.

    Raises:
        ConfigError: their data or the seeds of their splits differ.
    """
    first = runs[0]
    keys = ("source", "val", "test", "label_noise")
    for run in runs[1:]:
        mine, theirs = ([r.config.data.get(key) for key in keys] for r in (first, run))
        seeds = {r.run.metadata()["seeds"]["data"] for r in (first, run)}
        if mine != theirs or len(seeds) > 1:
            raise ConfigError(
                f"predict: {first.folder} and {run.folder} split their samples differently, so "
                "that one was trained on what tests the other: name new samples, as in "
                "data.source.path=new.csv, or train runs that share seed.data"
            )


def open_member(run: RunResult, cfg: DictConfig) -> tuple[Predictor, RunData]:
    """Load a run's model and the samples that it is to predict.

    Args:
        run: the run.
        cfg: its configuration, with overrides of data and trainer.

    Raises:
        ConfigError: it has learned no task, has no weights, or its data cannot be read.
    """
    from truerisk.assemble import build_data
    from truerisk.core.python_objects import offer_objects
    from truerisk.task import get_task

    if not get_task(run.task).has_samples:
        raise ConfigError(f"predict: {run.folder} minimises a function, and has nothing to predict")
    predictor: Any = run.model
    predictor.precision = cfg.trainer.get("precision") or predictor.precision
    with offer_objects(run.objects):
        data = build_data(cfg, load_checkpoint(run.run.best)["data"], predicting=True)
    return predictor, data


def choose_splits(data: RunData, split: str | None) -> list[str]:
    """Return the names of the splits to predict.

    Args:
        data: the samples.
        split: ``train``, ``val``, ``test`` or ``all``; None for the test set if there is one.

    Raises:
        ConfigError: there is no such split.
    """
    known = [name for name in SPLITS if getattr(data, name) is not None]
    if split == "all":
        return known
    if split is None:
        return known[-1:]
    if split not in known:
        raise ConfigError(f"predict: there is no split '{split}'; there are {', '.join(known)}")
    return [split]


def average_members(members: Sequence[tuple[Predictor, RunData]], name: str) -> Tensor:
    """Return the outputs [n, …] of the mean prediction on a split.

    Args:
        members: models, each with its own reading of the samples.
        name: of the split.
    """
    outputs = [predict_split(predictor, data, name) for predictor, data in members]
    if len(outputs) == 1:
        return outputs[0]
    first = members[0][0]
    return first.task.average_outputs(first.surrogate, outputs)


def predict_split(predictor: Predictor, data: RunData, name: str) -> Tensor:
    """Return a model's outputs [n, …] on a split, in the order of its samples.

    Args:
        predictor: the model.
        data: the samples.
        name: of the split.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor.to(device)
    split = getattr(data, name).to(device, predictor.dtype)
    size = predictor.task.block_size(data.info.input_shape)
    blocks = torch.arange(len(split)).split(size)
    with torch.no_grad():
        outputs = [predictor.run_network(batch.x).cpu() for batch in split.batches(blocks)]
    predictor.to("cpu")
    return torch.cat(outputs)


def fit_temperature(
    runs: Sequence[RunResult], members: Sequence[tuple[Predictor, RunData]]
) -> float:
    """Fit T > 0 so that outputs f / T have the least negative log-likelihood on validation samples.

    Source: Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks" (2017), §4.2.

    Args:
        runs: whose own validation set is taken.
        members: their models.

    Raises:
        ConfigError: the loss gives no probabilities of classes.
    """
    from scipy.optimize import minimize_scalar

    predictor = members[0][0]
    own = [open_member(run, run.config) for run in runs]
    if len(runs) > 1:
        check_splits(runs)
    outputs, y = average_members(own, "val").double(), own[0][1].val.y
    task, surrogate = predictor.task, predictor.surrogate
    if task.read_probabilities(surrogate, outputs) is None:
        raise ConfigError(
            "predict: a temperature calibrates the probabilities of classes or labels, and "
            f"loss={runs[0].config.loss._target_} gives none of them"
        )

    def cost(log_t: float) -> float:
        p = task.read_probabilities(surrogate, outputs / math.exp(log_t))
        assert p is not None
        # of a class its own probability; of labels that of each being there or not
        mine = p.gather(1, y[:, None]) if y.ndim == 1 else p.where(y > 0, 1 - p)
        # a probability that rounds to 0 still has a logarithm
        return -float(mine.clamp(min=1e-300).log().mean())

    return math.exp(float(minimize_scalar(cost, bounds=(-5, 5), method="bounded").x))


def list_targets(cfg: DictConfig) -> list[str]:
    """Return the names of the columns that a run learned, where it names several."""
    source = cfg.data.get("source") or {}
    goals = source.get("target", source.get("y"))
    return [] if goals is None or isinstance(goals, str) else [str(goal) for goal in goals]


def tabulate(
    predictor: Predictor,
    data: RunData,
    name: str,
    predicted: Any,
    targets: Sequence[str] = (),
) -> DataFrame:
    """Tabulate the predictions of a split, a row a sample.

    Args:
        predictor: the model that reads outputs, and the loss.
        data: the samples.
        name: of the split.
        predicted: a `Prediction`.
        targets: names of the columns of quantities or labels, where there are several.
    """
    import pandas as pd

    columns: dict[str, Any] = {**data.identities[name], "split": name}
    has_targets = data.expected is None or not data.expected.lacks_targets
    y = getattr(data, name).y
    names = predictor.class_names or list(targets)
    if has_targets:
        truth = y.numpy()
        if predictor.task.has_classes and predictor.class_names:
            truth = predictor.classes[truth]
        columns |= spread_columns("target", truth, names)
    columns |= spread_columns("prediction", predicted.values, names)
    if predicted.probabilities is not None:
        p = predicted.probabilities
        labels = names
        if len(names) != p.shape[1]:
            labels = [str(k) for k in range(p.shape[1])]
        columns |= {f"probability_{label}": p[:, k].numpy() for k, label in enumerate(labels)}
    if has_targets:
        columns["loss"] = measure_losses(predictor, predicted.outputs, y).numpy()
    return pd.DataFrame(columns)


def spread_columns(name: str, values: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Return values [n] or [n, 1] as a column, and values [n, k] as k of them.

    Args:
        name: of the column.
        values: an array or a list.
        labels: names of the k columns, where they have any.
    """
    if getattr(values, "ndim", 1) == 1:
        return {name: values}
    if values.shape[1] == 1:
        return {name: values[:, 0]}
    if len(labels) != values.shape[1]:
        labels = [str(k) for k in range(values.shape[1])]
    return {f"{name}_{label}": values[:, k] for k, label in enumerate(labels)}


def measure_losses(predictor: Predictor, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each sample, [n], as risks are measured.

    Args:
        predictor: whose loss it is.
        outputs: in the targets' own units, [n, …].
        y: the targets.
    """
    surrogate = predictor.surrogate
    own = surrogate.scale_outputs(outputs)
    return surrogate.report_losses(surrogate(own, y), own, y).detach()


def measure_table(
    table: DataFrame, predictor: Predictor, data: RunData, name: str, weighted: bool
) -> dict[str, list[float]]:
    """Measure predictions of a split as a run measures it: clustered and weighted where it is.

    Args:
        table: the predictions.
        predictor: that made them.
        data: the samples.
        name: of the split.
        weighted: whether samples count by their weights.

    Returns:
        Value and standard error of the mean ``loss`` and of the share of wrong classes, ``error``,
        where there are any.
    """
    import torch

    from truerisk.risk.estimate import make_estimate

    values: dict[str, Tensor] = {}
    if "loss" in table:
        values["loss"] = torch.as_tensor(table["loss"].to_numpy(copy=True))
    if {"target", "prediction"} <= set(table) and table["prediction"].dtype.kind not in "f":
        wrong = table["target"] != table["prediction"]
        values["error"] = torch.as_tensor(wrong.to_numpy(dtype="float64"))
    numbers, weights = data.groups.get(name), None
    if weighted:
        y = getattr(data, name).y
        weights = data.weights.get(name, torch.ones(len(table), dtype=torch.float64))
        of_class = predictor.surrogate.class_weight
        if of_class is not None and y.ndim == 1:
            weights = weights * of_class[y].to(weights)
        if numbers is None:
            numbers = torch.arange(len(table))  # independent: each its own group
    marks: tuple[Tensor | None, ...] = ()
    groups, population = 0, math.inf
    if numbers is not None:
        marks, groups = (numbers, weights), int(numbers.max()) + 1
    if predictor.task.is_exact(name):
        population = len(table)
    found = {}
    for key, one in values.items():
        estimate = make_estimate("cpu", groups)
        estimate.update(one, *marks)
        found[key] = [float(number) for number in estimate.to_measured(population)[:2]]
    return found


def write_table(table: DataFrame, file: str | Path) -> Path:
    """Write predictions as CSV or Parquet, by the name's ending.

    Args:
        table: see `predict`.
        file: its name.

    Returns:
        The path.

    Raises:
        ConfigError: another ending, or it cannot be written.
    """
    path = Path(file)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {file}: the name ends in {' or '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        else:
            table.to_csv(path, index=False)
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'truerisk[parquet]'") from None
    except OSError as error:
        raise ConfigError(f"--out {file}: {first_line(error)}") from None
    return path


def describe_table(table: DataFrame) -> str:
    """Tell in a line how many samples were predicted, and how well.

    Args:
        table: see `predict`.
    """
    parts, counts = [], table["split"].value_counts()
    for name, measured in table.attrs["measured"].items():
        parts.append(f"{counts[name]} sample{'s' * int(counts[name] != 1)} ({name})")
        if "loss" in measured:
            value, spread = measured["loss"]
            parts.append(f"mean loss {value:.4g} ± {spread:.2g}")
        if "error" in measured:
            parts.append(f"{100 * measured['error'][0]:.3g} % wrong")
    if table.attrs.get("temperature", 1.0) != 1.0:
        parts.append(f"temperature {table.attrs['temperature']:.3g}")
    return ", ".join(parts)


def predict_command(
    folders: Sequence[str],
    overrides: Sequence[str],
    out: str,
    options: Mapping[str, Any],
) -> None:
    """Do what ``truerisk predict`` asks.

    Args:
        folders: of the runs.
        overrides: of data and trainer.
        out: the file to write.
        options: further arguments of `predict`.
    """
    from truerisk.show.console import print_notes

    table = predict(folders, overrides, **options)
    path = write_table(table, out)
    print_notes(table.attrs["notes"])
    print(f"{describe_table(table)}  {path}")
