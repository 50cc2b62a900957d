"""One cell of a study: a configuration, its identity, and the folder of its run."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.core.errors import ConfigError
from truerisk.core.stop import read_stop
from truerisk.core.yaml_files import format_yaml
from truerisk.logger.label import CELL
from truerisk.outcome import Outcome
from truerisk.risk.measured import read_monitor
from truerisk.run import RunFolder, RunSnapshot

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from truerisk.result import RunResult

DONE = ("finished", "diverged")
"""How a cell ends that is not tried again."""
IGNORED = frozenset(
    {"logger", "threads", "checkpoint_seconds", "resume", "study", "figures", "report", "hydra"}
    | {"recompute"}
)
"""Keys that say where and how fast a run goes, and who else is told of it."""
IGNORED_IN_DATA = frozenset({"in_memory", "workers", "cache"})
"""How samples get into memory."""
NEUTRAL: Mapping[tuple[str, ...], Mapping[str, Any]] = {
    (): {"metric": {}, "monitor": "risk/val", "parametrization": {"base": None}},
    ("data",): {
        "standardize_target": False,
        "split": "random",
        "stratify": True,
        "folds": None,
        "fold": 0,
        "sampler": None,
    },
    ("data", "source"): {
        "classes": None,
        "weight": None,
        "dates": "category",
        "decimal": ".",
        "thousands": None,
        "encoding": "utf-8",
        "skip_lines": 0,
        "na_values": [],
        "keep_default_na": True,
        "id": None,
        "unlabelled": "refuse",
    },
    ("risk",): {"weighted": False, "final_train_samples": None},
    ("loss",): {"weight": None},
    ("scheduler",): {"exponent": 0.5},
    ("model",): {"shortcut": "zeros"},
    ("diagnostics", "curvature"): {"training_mode": False},
    ("diagnostics", "flatness"): {"rescale": None},
}
"""Values of keys that mean what earlier versions did, which had no such key; by where they are."""
UNSCALED = (
    *("torch.nn.CrossEntropyLoss", "torch.nn.BCEWithLogitsLoss", "torch.nn.NLLLoss"),
    *("torch.nn.MultiMarginLoss", "truerisk.loss.Hinge"),
)
"""Losses of classes, which no scale of a target concerns."""
HASH_DIGITS = 10
LONGEST_SLUG = 120
"""Characters of a folder's name before its hash; file systems take 255 bytes."""


@dataclass(frozen=True)
class SweepCell:
    """A run that a sweep asks for.

    Attributes:
        overrides: all of the cell's overrides, without Hydra's own.
        varied: those of them that tell it from other cells of the same command.
        config: its plain, resolved configuration; empty where it could not be composed.
        folder: where its run lies or will lie; the name ends in the configuration's hash.
        hydra: a configuration of Hydra's own node alone, pickled.
        problem: why it cannot work; empty where nothing is known against it.
        changed: the files and modules that a run of this configuration had other contents of.
    """

    overrides: tuple[str, ...]
    varied: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path
    hydra: bytes = b""
    problem: str = ""
    changed: tuple[str, ...] = ()

    def make_cfg(self) -> DictConfig:
        """Make the configuration as `truerisk.fit.train_config` takes it, which may change it."""
        from omegaconf import OmegaConf

        cfg = OmegaConf.create(dict(self.config))
        OmegaConf.set_struct(cfg, True)
        return cfg

    @property
    def run(self) -> RunFolder:
        """The files of its run."""
        return RunFolder(self.folder)

    @property
    def label(self) -> str:
        """What tells it from the others, as its folder's name has it."""
        return strip_hash(self.folder)

    @property
    def digits(self) -> str:
        """The hash that the name of its folder ends in."""
        return self.folder.name.rpartition("-")[2]

    def read_outcome(self) -> Outcome:
        """Read how its run stands: ``missing`` where it has not begun."""
        return read_outcome(self.folder)


def make_cfgs(cells: Sequence[SweepCell]) -> Iterator[DictConfig]:
    """Make the configurations of cells that differ in little, each as `SweepCell.make_cfg` does.

    Args:
        cells: of one study.
    """
    if not cells:
        return
    first = cells[0]
    # to copy one and set what differs takes a tenth of the time that it takes to make one
    copied = pickle.dumps(first.make_cfg())
    for cell in cells:
        if list(cell.config) == list(first.config):
            cfg = pickle.loads(copied)
            _set_differing(cfg, first.config, cell.config)
            yield cfg
        else:
            yield cell.make_cfg()


def _set_differing(cfg: DictConfig, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Set what differs from the plain configuration that ``cfg`` was made of."""
    for key, value in config.items():
        old = before[key]
        if isinstance(value, dict) and isinstance(old, dict) and list(value) == list(old):
            _set_differing(cfg[key], old, value)
        elif repr(value) != repr(old):  # 1 and 1.0 differ, and so do True and 1
            cfg[key] = value


def strip_hash(folder: Path) -> str:
    """Take the hash off the name of a cell's folder.

    >>> strip_hash(Path("outputs/seed/optimizer=sgd,seed=3-0123456789"))
    'optimizer=sgd,seed=3'
    """
    return CELL.sub("", folder.name)


def read_outcome(folder: Path) -> Outcome:
    """Read how a run stands from its folder, without loading torch."""
    run = RunSnapshot(folder)
    # a run killed before its config.yaml was there cannot be resumed: it has not begun
    record = run.status() if run.config.exists() or run.last.exists() else {}
    status = record.get("status", "missing")
    score = math.nan
    if status != "diverged":  # risks of weights that have blown up are no measure of the recipe
        score = _read_score(run)
    reason, damage = record.get("reason", ""), {}
    if status in DONE:
        damage = run.find_damage()
    for path, fault in damage.items():
        if path not in (run.metrics, run.last):  # what is lost of its end is measured again
            status, reason = "failed", f"{path.name} {fault}"
    stop, damaged = read_stop(record), status in DONE and bool(damage)
    return Outcome(score, status, reason, new=False, stop=stop, damaged=damaged)


def record_cell_failure(cell: SweepCell, outcome: Outcome) -> None:
    """Leave a folder for a cell that failed or was refused before it had one.

    Args:
        cell: the cell.
        outcome: how it ended.
    """
    run = cell.run
    # one that has failed where it ran has left its traceback
    traced = run.status().get("status") == "failed" and outcome.status == "failed"
    if outcome.status in ("failed", "refused") and not traced and not run.begun:
        config = format_yaml(cell.make_cfg()) if cell.config else ""
        facts = {"overrides": list(cell.overrides)}
        run.record_failure(outcome.status, outcome.reason, config, facts)


def outcome_of_result(result: RunResult) -> Outcome:
    """Take the outcome of a run that has just been at work."""
    value = math.nan
    if result.status != "diverged":
        value = _read_score(result.run)
    stop = read_stop(RunFolder(result.folder).status())
    return Outcome(value, result.status, result.reason, stop=stop)


def _read_score(run: RunFolder) -> float:
    """Read what the run followed at its best weights, turned so that less is better."""
    try:
        monitor = read_monitor(run.metadata())
        return monitor.orient(run.measured(monitor.name).value)
    except (ConfigError, OSError, ValueError, KeyError):
        return math.nan


def hash_config(config: Mapping[str, Any], contents: Mapping[str, str] | None = None) -> str:
    """Hash what changes the result of a run: ten hexadecimal digits of SHA-256.

    Left out is what does not change the result: loggers, threads, checkpoint times, paths of the
    run itself. What does stays in: diagnostics, as what they saw is part of it, and the device and
    the precision, which change the last digits. The order of keys does not count, but that of
    regularizers does: they edit the batch one after another. ``1`` and ``1.0`` differ, as they do
    for ``data.test``.

    Args:
        config: plain, resolved containers.
        contents: of the files it names, for a cell whose configuration has a folder already, of
            other contents (`truerisk.config.contents`).

    >>> hash_config({"a": 1, "b": 2, "threads": 4}) == hash_config({"b": 2, "a": 1})
    True
    """
    counted: dict[str, Any] = {key: node for key, node in config.items() if key not in IGNORED}
    if isinstance(counted.get("data"), Mapping):
        counted["data"] = _drop_reading(counted["data"])
    counted = drop_neutral(counted)
    if isinstance(counted.get("regularizer"), Mapping):
        # a list of pairs, since `sort_keys` would forget their order
        counted["regularizer"] = list(counted["regularizer"].items())
    if revised := find_revisions(config):
        counted["revised"] = revised
    # the text must never change: studies of earlier versions are found by it
    text = json.dumps(counted, sort_keys=True, default=str)
    if contents:
        text += json.dumps(contents, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def find_revisions(config: Mapping[str, Any]) -> list[str]:
    """Name what of a cell comes to other numbers than in the versions that had it wrong.

    Their studies are left as they are: such a cell is another one, and is trained again.

    Args:
        config: plain, resolved containers.

    Returns:
        Words that never change, in alphabetical order; none for most cells.

    >>> find_revisions({"scheduler": {"_target_": "a.b.CosineAnnealingWarmRestarts", "T_0": 0.25}})
    ['descents of a share']
    """
    return sorted(word for word, holds in REVISIONS.items() if holds(config))


def _numbers_of(config: Mapping[str, Any], group: str, kind: str) -> list[Mapping[str, Any]]:
    """Return the nodes of a group, or of its entries, whose ``_target_`` ends in a class's name."""
    node = config.get(group)
    if not isinstance(node, Mapping):
        return []
    nodes = [node, *node.values()]
    return [
        n for n in nodes if isinstance(n, Mapping) and str(n.get("_target_")).endswith(f".{kind}")
    ]


def _mixes_little(config: Mapping[str, Any]) -> bool:
    nodes = [*_numbers_of(config, "regularizer", "Mixup")]
    nodes += _numbers_of(config, "regularizer", "CutMix")
    return any(isinstance(n.get("alpha"), float) and n["alpha"] < 0.01 for n in nodes)


def _restarts_by_share(config: Mapping[str, Any]) -> bool:
    nodes = _numbers_of(config, "scheduler", "CosineAnnealingWarmRestarts")
    return any(isinstance(n.get("T_0"), float) for n in nodes)


def _waits_below_zero(config: Mapping[str, Any]) -> bool:
    follows = _numbers_of(config, "scheduler", "ReduceLROnPlateau")
    return bool(follows and _numbers_of(config, "loss", "Value"))


def _may_have_batch_norm(config: Mapping[str, Any]) -> bool:
    model = config.get("model") or {}
    built_in = str(model.get("_target_")).startswith("truerisk.model.")
    return not built_in or model.get("normalization") == "batch"


def _averages_statistics(config: Mapping[str, Any]) -> bool:
    kinds = ("EMA", "SWA")
    averages = any(_numbers_of(config, "regularizer", kind) for kind in kinds)
    return averages and _may_have_batch_norm(config)


def _inverts_singular(config: Mapping[str, Any]) -> bool:
    nodes = _numbers_of(config, "optimizer", "Newton")
    return any(not n.get("damping") and not n.get("saddle_free") for n in nodes)


def _measures_elsewhere(config: Mapping[str, Any]) -> bool:
    target = str((config.get("optimizer") or {}).get("_target_"))
    return "ScheduleFree" in target and _may_have_batch_norm(config)


REVISIONS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "beta by logarithms": _mixes_little,
    "descents of a share": _restarts_by_share,
    "risk without smoothing": lambda config: bool(
        (config.get("loss") or {}).get("label_smoothing")
    ),
    "least norm": _inverts_singular,
    "plateau below zero": _waits_below_zero,
    "singular vectors": lambda config: bool(_numbers_of(config, "regularizer", "SpectralNorm")),
    "statistics of an average": _averages_statistics,
    "statistics of x": _measures_elsewhere,
}
"""What tells a cell that earlier versions trained or measured wrongly, by a word of its own."""


def drop_neutral(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the keys that stand at what earlier versions, which lacked them, did."""
    counted = dict(config)
    for place, values in NEUTRAL.items():
        _drop_values(counted, place, values)
    data, loss = counted.get("data"), counted.get("loss")
    if isinstance(data, Mapping) and isinstance(loss, Mapping) and loss.get("_target_") in UNSCALED:
        counted["data"] = {k: v for k, v in data.items() if k != "standardize_target"}
    return counted


def _drop_values(node: dict[str, Any], place: Sequence[str], values: Mapping[str, Any]) -> None:
    """Delete keys below a place that have the given values; all on the way there is copied."""
    for key in place:
        if not isinstance(node.get(key), Mapping):
            return
        node[key] = node = dict(node[key])
    for key, value in values.items():
        if key in node and node[key] == value:
            del node[key]


def _drop_reading(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of ``data``, and of its source, how samples get into memory."""
    counted = {key: node for key, node in data.items() if key not in IGNORED_IN_DATA}
    source = counted.get("source")
    if isinstance(source, Mapping):
        counted["source"] = {k: v for k, v in source.items() if k not in IGNORED_IN_DATA}
    return counted


def make_slug(overrides: Sequence[str], telling: Collection[str] = ()) -> str:
    """Make a part of a folder's name of overrides.

    Args:
        overrides: of a cell.
        telling: keys that tell cells apart: where all overrides are too long, those alone count.

    >>> make_slug(["optimizer=sgd", "seed.base=3", "regularizer=[l2,dropout]", "a.path='b/c'"])
    'optimizer=sgd,seed=3,regularizer=l2+dropout,a.path=b-c'
    """
    text = _join_overrides(overrides)
    if telling and len(text) > LONGEST_SLUG:
        text = _join_overrides([o for o in overrides if o.partition("=")[0] in telling]) or text
    return text[:LONGEST_SLUG].rstrip("-,.") or "run"


def _join_overrides(overrides: Sequence[str]) -> str:
    short = [re.sub(r"^(\+{0,2})seed\.base=", r"\1seed=", text) for text in overrides]
    joined = [text.strip("+~").replace(",", "+") for text in short]
    clean = [re.sub(r"[^\w.=+-]+", "-", re.sub(r"[\[\]{}'\"]", "", text)) for text in joined]
    return ",".join(clean)


def list_telling_keys(points: Iterable[Sequence[str]]) -> set[str]:
    """List the keys that have several values among the points of a sweep.

    A value that each point has which has the key at all tells as little as one that all have.

    >>> sorted(list_telling_keys([["data=a", "model=m", "lr=1"], ["data=a", "lr=2"]]))
    ['lr']
    """
    values = {override for point in points for override in point}
    counts = Counter(override.partition("=")[0] for override in values)
    return {key for key, count in counts.items() if count > 1}
