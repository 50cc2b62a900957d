"""Runs read back from their folders: what each was, how it ended and what it measured."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import yaml

from truerisk.config.compose import quote_override
from truerisk.config.contents import find_module_name
from truerisk.config.parts import existing_folder
from truerisk.core.errors import ConfigError, join_lines
from truerisk.core.seeds import derive_streams
from truerisk.core.stop import Stop, read_stop
from truerisk.core.yaml_files import YamlLoader
from truerisk.logger.history import read_rows
from truerisk.risk.measured import FOLLOWED_RISK, Measured, Monitor, read_monitor
from truerisk.run import RunFolder, RunSnapshot

CURVES = ("risk/train", "risk/val", "error/train", "error/val")
"""The metrics whose history is read."""

GROUP = re.compile(r"^(?=\w)", re.MULTILINE)
"""Where a key of the top begins; what is below it is indented, or an item of its list."""

_MISSING = object()


class MetricCurve(NamedTuple):
    """A metric over training: three arrays [epochs]."""

    epoch: np.ndarray
    step: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class RunRecord:
    """One run: its configuration, how it ended, what it measured.

    Args:
        folder: where its files are.
        config: its resolved configuration as plain containers.
        status: as in ``status.json``; ``diverged`` also where the validation risk is not finite.
        reason: a sentence on why it ended so.
        seed: the seeds of its random streams, by which runs of different recipes are paired.
        started: the time it began, in ISO 8601; empty where unknown.
        command: a command that trains it again.
        summary: the metrics at the best weights.
        curves: the metrics of `CURVES` that were recorded, by name.
        stop: what ended it before its time, if anything.
        contents: digests of the files and modules that it names (`truerisk.config.contents`).
        smoothed: whether label smoothing is in its risks, as an earlier version measured them.
        monitor: what chose its best weights.
        higher: the metrics of its configuration of which higher is better, as ``metric/NAME``.
        losses: risk and error of each sample of the fold it was tested on, and perhaps its group.
        parameters: how many numbers it trained; None where an earlier version did not note it.
    """

    folder: Path
    config: Mapping[str, Any]
    status: str
    reason: str
    seed: tuple[int, ...]
    started: str
    command: str
    summary: Mapping[str, Measured]
    curves: Mapping[str, MetricCurve]
    stop: Stop | None = None
    contents: Mapping[str, str] = field(default_factory=dict)
    smoothed: bool = False
    monitor: Monitor = FOLLOWED_RISK
    higher: frozenset[str] = frozenset()
    losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    parameters: int | None = None

    @property
    def halved(self) -> bool:
        """Whether successive halving ended it early."""
        return self.stop is not None and self.stop.kind == "halving"

    def get_value(self, metric: str) -> float:
        """Look a metric up in the summary; nan where it was not measured."""
        if metric not in self.summary:
            return math.nan
        return self.summary[metric].value


class CollectedRuns(NamedTuple):
    """The runs below some folders, and a line for each that could not be read.

    ``refused`` has the cells that cannot work, each with the reason, by folder.
    """

    runs: list[RunRecord]
    unreadable: list[str]
    refused: Mapping[Path, str] = MappingProxyType({})


def collect_runs(folders: Iterable[str | Path]) -> CollectedRuns:
    """Read every run at or below the folders, each once.

    Raises:
        ConfigError: a folder is not there, or there is no run below it.
    """
    run_paths: dict[Path, None] = {}
    refused: dict[Path, str] = {}
    runs, unreadable = [], []
    for folder in folders:
        paths = list(find_run_folders(existing_folder(folder, "report")))
        remains = [f"{path}: it has no {name}" for path, name in find_remains(Path(folder))]
        unreadable += remains
        refused |= find_refused(Path(folder))
        if not paths and not remains and not refused:
            raise ConfigError(
                f"report: there is no run below {folder} "
                f"(a run's folder holds {RunFolder.CONFIG} and {RunFolder.STATUS})"
            )
        # resolved, so that two links to one run count once
        run_paths |= dict.fromkeys(path.resolve() for path in paths)
    for path in run_paths:
        if path in refused:
            continue
        try:
            runs.append(read_run_record(path))
        # whatever is wrong with one run's files, the others are still worth a report
        except (ConfigError, yaml.YAMLError, ValueError, KeyError, TypeError, OSError) as error:
            unreadable.append(f"{path}: {join_lines(error)}")
    return CollectedRuns(tell_smoothed_apart(tell_contents_apart(runs)), unreadable, refused)


def tell_smoothed_apart(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Give risks with label smoothing in them a learning problem of their own.

    Args:
        runs: as they were read.
    """
    if not any(run.smoothed for run in runs):
        return list(runs)
    # a key of every run: one that some lack tells nothing apart
    words = {True: "with smoothing", False: "without smoothing"}
    configs = [
        {**run.config, "loss": {**(run.config.get("loss") or {}), "measured": words[run.smoothed]}}
        for run in runs
    ]
    return [replace(run, config=config) for run, config in zip(runs, configs, strict=True)]


def tell_contents_apart(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Give configurations that name one file or module, of several contents, a key for it.

    What data or loss are made of goes below ``data``, as risks on other samples are another
    problem's; a module of a model's or an optimizer's makes another recipe.

    Args:
        runs: as they were read.
    """
    digests: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, digest in run.contents.items():
            digests[name].add(digest)
    several = {name for name, distinct in digests.items() if len(distinct) > 1}
    if not several:
        return list(runs)
    return [_add_contents(run, several & set(run.contents)) for run in runs]


def _add_contents(run: RunRecord, names: Collection[str]) -> RunRecord:
    problem: list[str] = []
    recipe: list[str] = []
    texts = [str(text) for head in ("data", "loss") for text in _list_texts(run.config.get(head))]
    for name in sorted(names):
        word = f"{name}:{run.contents[name][:6]}"
        part_of_problem = any(find_module_name(text, [name]) for text in texts)
        (problem if part_of_problem else recipe).append(word)
    config = dict(run.config)
    if problem:
        config["data"] = {**config["data"], "content": " ".join(problem)}
    if recipe:
        config["code"] = " ".join(recipe)
    return replace(run, config=config)


def _list_texts(node: Any) -> list[Any]:
    if isinstance(node, Mapping):
        return [text for value in node.values() for text in _list_texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _list_texts(value)]
    return [node]


def find_run_folders(top: Path) -> Iterator[Path]:
    """Find the folders of runs at or below ``top``, in natural order, hidden folders left out."""
    for path, inner, files in os.walk(top):
        if {RunFolder.CONFIG, RunFolder.STATUS} <= set(files):
            yield Path(path)
            inner.clear()  # os.walk goes down only into what is left in this list
        inner[:] = sorted((n for n in inner if not n.startswith(".")), key=natural_order)


def find_remains(top: Path) -> Iterator[tuple[Path, str]]:
    """Find the folders at or below ``top`` that a run has measured in, and what each has lost."""
    needed = (RunFolder.CONFIG, RunFolder.STATUS)
    for path, inner, files in os.walk(top):
        lost = [name for name in needed if name not in files]
        # a run that was refused, or has not begun, has no metrics
        if lost and {RunFolder.METADATA, RunFolder.METRICS} <= set(files):
            yield Path(path).resolve(), lost[0]
        inner[:] = sorted((n for n in inner if not n.startswith(".")), key=natural_order)


def find_refused(top: Path) -> dict[Path, str]:
    """Find the cells at or below ``top`` that cannot work, and why."""
    refused = {}
    for path, inner, files in os.walk(top):
        # a run that has begun has metrics; the status of a thousand need not be read for this
        if RunFolder.STATUS in files and RunFolder.METRICS not in files:
            reason = RunFolder(path).read_refusal()
            if reason is not None:
                refused[Path(path).resolve()] = reason
        inner[:] = sorted((n for n in inner if not n.startswith(".")), key=natural_order)
    return refused


def natural_order(name: str) -> list[tuple[int, str]]:
    """Make a sort key that compares runs of digits as numbers.

    >>> sorted(["lr10", "lr9", "a"], key=natural_order)
    ['a', 'lr9', 'lr10']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_seeds(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the seeds of a run's streams, and the fold that it was tested on, if there are any.

    Runs of two recipes are paired by these.
    """
    seeds = tuple(derive_streams(config["seed"]))
    data = config.get("data") or {}
    return (*seeds, data["fold"]) if data.get("folds") else seeds


def read_overlap(config: Mapping[str, Any]) -> float:
    """Return test samples over training samples where runs of other folds share training samples.

    Of folds in time the ratio falls as the past grows, and its mean counts.

    >>> read_overlap({"data": {"folds": 5}}), read_overlap({"data": {}})
    (0.25, 0.0)
    """
    data = config.get("data") or {}
    folds = data.get("folds")
    if not folds:
        return 0.0
    if str(data.get("split", "")).startswith("time:"):
        return sum(1 / k for k in range(1, folds + 1)) / folds
    return 1 / (folds - 1)


def read_resplit(run: RunRecord) -> float:
    """Return test samples over training samples where every seed splits one set of samples anew.

    Returns:
        0 where samples are drawn anew, the test set is the same for every seed, or folds count.
    """
    data = run.config.get("data") or {}
    source, asked = data.get("source") or {}, (data.get("val"), data.get("test"))
    drawn = str(data.get("split", "random")).startswith(("random", "group:"))
    shares = [share for share in asked if isinstance(share, float) and 0 < share < 1]
    sizes = [run.summary[m].size or 0 for m in ("risk/val", "risk/test") if m in run.summary]
    made_anew = "seed" in source and source["seed"] is None
    if not source or made_anew or data.get("folds") or not drawn or len(shares) < 2:
        return 0.0
    if len(sizes) < 2 or not all(sizes):
        return 0.0
    of_val, of_test = (size / share for size, share in zip(sizes, shares, strict=True))
    # a test set of the source's own has another size than the share asks for
    if abs(of_val - of_test) > sum(1 / share for share in shares):
        return 0.0
    val, test = shares
    return test / (1 - val - test)


def read_config(run: RunFolder) -> dict[str, Any]:
    """Read a run's configuration as plain containers, which is much faster than OmegaConf."""
    try:
        config = _parse_config(run.config.read_text())
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{run.config} is damaged: {join_lines(error)}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{run.config} is damaged: it holds no configuration of a run")
    return config


def _parse_config(text: str) -> Any:
    """Parse a configuration group by group, each text of a group once: runs share most of them."""
    head, *groups = GROUP.split(text)
    try:
        parsed = [_parse_group(group) for group in groups]
    except yaml.YAMLError:  # a group that needs another, or a fault that is to be placed
        return yaml.load(text, YamlLoader)
    if head.strip() or not parsed or not all(isinstance(group, dict) for group in parsed):
        return yaml.load(text, YamlLoader)
    config = {key: node for group in parsed for key, node in group.items()}
    if len(config) < sum(map(len, parsed)):  # a key that stands twice, which is a fault
        return yaml.load(text, YamlLoader)
    return config


@lru_cache(maxsize=2**16)
def _parse_group(text: str) -> Any:
    return yaml.load(text, YamlLoader)


def read_run_record(path: Path) -> RunRecord:
    """Read one run's files; one that finished with a validation risk of nan or ∞ diverged.

    Raises:
        ConfigError: a JSON file cannot be parsed.
        yaml.YAMLError: the configuration cannot be parsed.
    """
    folder = RunSnapshot(path)
    config = read_config(folder)
    for file, fault in folder.find_damage().items():
        # weights are no business of a report's, nor is what a kill tore
        if file not in (folder.last, folder.best):
            raise ConfigError(f"{file} {fault}")
    facts, record, summary = folder.metadata(), folder.status(), folder.summary()
    loss, without = config.get("loss") or {}, facts.get("measured_without", ())
    status, reason, stop = record.get("status", "running"), record.get("reason", ""), None
    risk = summary.get("risk/val")
    if status == "finished" and risk is not None and not math.isfinite(risk.value):
        status, reason = "diverged", "the validation risk is not finite"
    else:
        stop = read_stop(record)
    return RunRecord(
        folder=folder.path,
        config=config,
        status=status,
        reason=reason,
        seed=read_seeds(config),
        started=facts.get("started", ""),
        command=rebuild_command(facts.get("command", ()), config),
        summary=summary,
        curves=read_curves(folder.metrics),
        stop=stop,
        contents=facts.get("contents", {}),
        smoothed=bool(loss.get("label_smoothing")) and "label_smoothing" not in without,
        monitor=read_monitor(facts),
        higher=frozenset(f"metric/{k}" for k, up in facts.get("metrics", {}).items() if up),
        losses=folder.losses() if read_overlap(config) else {},
        parameters=facts.get("parameters"),
    )


def read_curves(path: Path) -> dict[str, MetricCurve]:
    """Read the risks and errors after each epoch out of ``metrics.csv``; missing ones are left out.

    The file is parsed by hand, as a CSV reader takes ten times as long over a thousand of them.
    """
    points: dict[bytes, dict[int, tuple[int, float]]] = {name.encode(): {} for name in CURVES}
    splits = (b"/train", b"/val")
    for row in read_rows(path, strict=True):
        step, epoch, rest = row.split(b",", 2)
        name, _, value = rest.rpartition(b",")
        # quoted where it holds a comma
        name = name.strip(b'"')
        if name not in points and name.startswith(b"metric/") and name.endswith(splits):
            points[name] = {}
        if epoch and name in points:
            # the first value counts: the best weights are measured once more at the end
            points[name].setdefault(int(epoch), (int(step), float(value)))
    return {name.decode(): _build_curve(at) for name, at in points.items() if at}


def _build_curve(points: Mapping[int, tuple[int, float]]) -> MetricCurve:
    epochs = sorted(points)
    step, value = zip(*(points[epoch] for epoch in epochs), strict=True)
    return MetricCurve(np.array(epochs), np.array(step), np.array(value, dtype=float))


def rebuild_command(command: Sequence[str], config: Mapping[str, Any]) -> str:
    """Write the command that trains one run again, with its own values for the swept keys.

    Args:
        command: the words of the command that was recorded, perhaps of a sweep.
        config: the run's configuration.

    Returns:
        A line for the shell; empty where no command was recorded.

    >>> swept = ["/bin/truerisk", "train", "-m", "optimizer=sgd,adam", "seed=range(5)"]
    >>> rebuild_command(swept, {"choices": {"optimizer": "adam"}, "seed": {"base": 3}})
    'truerisk train optimizer=adam seed=3'
    """
    if not command:
        return ""
    words = list(command[1:])
    if not words or words[0] != "train":
        # trained by a script of the user's, which is what has to be run again
        return shlex.join(["python", *command])
    # flags of the sweep, and where its folders lie, are no part of a single run
    of_sweep = ("hydra.", "hydra/", "study=")
    own = [w for w in words if w not in ("-m", "--multirun") and not w.startswith(of_sweep)]
    return shlex.join(["truerisk", *(_resolve_override(word, config) for word in own)])


def complete_command(command: str, keys: Iterable[str], config: Mapping[str, Any]) -> str:
    """Append the values of ``keys`` and the seed to a command that does not set them.

    A sweeper may take its axes from a file, of which the command line shows nothing.

    Args:
        command: as `rebuild_command` writes it.
        keys: dotted keys in which runs differ.
        config: the run's configuration.

    Returns:
        The command; unchanged where it is not one of ``truerisk train``.

    >>> config = {"choices": {}, "optimizer": {"lr": 0.1}, "seed": {"base": 3}}
    >>> complete_command("truerisk train data=iris", ["optimizer.lr"], config)
    'truerisk train data=iris optimizer.lr=0.1 seed=3'
    """
    if not command.startswith("truerisk train"):
        return command
    present = {word.lstrip("+").partition("=")[0] for word in shlex.split(command)}
    if any(key.partition(".")[0] == "seed" for key in present):
        present.add("seed")  # seed.base=3 says what seed=3 says
    wanted = [key.removeprefix("choices.") for key in (*keys, "seed") if "_target_" not in key]
    values = {key: _override_value(key, config) for key in wanted if key not in present}
    added = [f"{key}={value}" for key, value in values.items() if value is not _MISSING]
    return " ".join([command, *map(shlex.quote, added)])


def _resolve_override(word: str, config: Mapping[str, Any]) -> str:
    """Replace a swept override by the run's own value; any other stays as it was written."""
    match = re.fullmatch(r"(\+{0,2})([\w./@]+)=(.*)", word, re.S)
    # only a sweep such as 1,2 or range(5) has a comma or a parenthesis
    if match is None or not re.search(r"[,(]", match[3]):
        return word
    sign, key, _ = match.groups()
    value = _override_value(key, config)
    if value is _MISSING:
        return word
    return f"{sign}{key}={value}"


def _override_value(key: str, config: Mapping[str, Any]) -> Any:
    """Write a config's value of a key, or its choice of a group, in Hydra's override grammar."""
    if key in (config.get("choices") or {}):
        return config["choices"][key]
    if key == "seed":
        key = "seed.base"  # seed=3 is short for it
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _MISSING
        node = node[part]
    if not isinstance(node, Mapping):
        return _format_override(node)
    if key in ("regularizer", "diagnostics", "logger"):  # groups of which any number is chosen
        return f"[{','.join(node)}]"
    return _MISSING


def _format_override(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(str(_format_override(v)) for v in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./:@%-]+", value):
        return quote_override(value)
    return value
