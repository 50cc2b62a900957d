"""A run's folder: who it is, how it is doing, and where its files are."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.config.contents import list_changed
from truerisk.core.atomic_files import (
    DAMAGED,
    NO_ROOM,
    find_fault,
    naming_file,
    replacing,
    spell_numbers,
    tell_damage,
    write_atomic,
    write_json,
)
from truerisk.core.errors import ConfigError, join_lines, read_message
from truerisk.core.stop import Stop
from truerisk.risk.measured import Measured, read_measured

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where those who start several processes tell each its number."""
ENDED = ("finished", "diverged")
PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "numpy", "torchmetrics")


def rank() -> int:
    """Which of a run's processes this is; the first one writes its files."""
    # Lightning knows, whose import takes long: not where nothing has started several processes
    if "lightning" not in sys.modules and not any(name in os.environ for name in RANKS):
        return 0
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", None) or 0


class RunFolder:
    """The files of one run, and the only place that knows their names.

    ``config.yaml`` ``metadata.json`` ``metrics.csv`` ``summary.json`` ``status.json``
    ``losses.npz`` (of a tested fold) ``checkpoints/last.ckpt`` ``checkpoints/best.ckpt``
    ``figures/``

    ``seconds`` is what the run had taken before it was opened here, and ``together`` how many runs
    its process trains at once.
    """

    CONFIG = "config.yaml"
    METADATA = "metadata.json"
    METRICS = "metrics.csv"
    SUMMARY = "summary.json"
    STATUS = "status.json"
    TABLES = "tables.json"
    LOSSES = "losses.npz"
    LAST = "checkpoints/last.ckpt"
    BEST = "checkpoints/best.ckpt"
    OWN = (CONFIG, METADATA, METRICS, SUMMARY, TABLES, LOSSES)
    TELLING = (CONFIG, METADATA, METRICS, SUMMARY, STATUS, LAST, BEST)
    """Those that an outcome, and what is damaged, are read from."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.seconds, self.together = 0.0, 1
        self._opened = time.monotonic()
        self.config = self.path / self.CONFIG
        self.metrics = self.path / self.METRICS
        self.summary_file = self.path / self.SUMMARY
        self.status_file = self.path / self.STATUS
        self.last = self.path / self.LAST
        self.best = self.path / self.BEST
        self.figures = self.path / "figures"

    def create(self, config: str, facts: Mapping[str, Any]) -> None:
        """Begin a fresh run here.

        Raises:
            ConfigError: the folder cannot be written, or holds a run already, or files of others
                that a run would overwrite.
        """
        claimed = False
        try:
            if self.path.exists() and not self.path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_files()
            if not self.begun:  # what a cell left that could not begin
                self.config.unlink(missing_ok=True)
            self._claim()
            claimed = True
            for folder in (self.last.parent, self.figures):
                folder.mkdir(exist_ok=True)
            self._write_json(self.METADATA, {**_metadata(), **facts})
            write_atomic(self.config, config)  # the last file: a run that has it can be resumed
        except OSError as error:
            if claimed:
                self.discard()
            raise ConfigError(
                f"cannot write the run folder {self.path}: {error.strerror}"
            ) from None

    def _refuse_files(self) -> None:
        """Refuse a folder that holds something of the user's that a run would overwrite."""
        own = [self.path / name for name in (*self.OWN, self.STATUS)]
        files = [file for file in (*own, self.last, self.best) if file.exists()]
        files += self.figures.glob("*.png")
        if not files and self.path == Path.cwd():
            # nobody means to spread a run among the files of the folder they work in
            files = [file for file in self.path.iterdir() if not file.name.startswith(".")]
        # the status is asked last: another process that has just begun a run here wrote it first
        if files and not self._is_runs():
            names = ", ".join(sorted(str(file.relative_to(self.path)) for file in files)[:5])
            raise ConfigError(
                f"{self.path} holds files that are no run's ({names}), and a run would write "
                "over or among them; name a folder of its own: hydra.run.dir=FOLDER"
            )

    def _is_runs(self) -> bool:
        """Tell whether a status file stands here that a run has written, or was about to."""
        if not self.status_file.exists():
            return False
        try:
            record = json.loads(self.status_file.read_text() or "{}")
        except ValueError:
            return False
        return isinstance(record, dict) and (not record or {"status", "pid", "host"} <= set(record))

    def _claim(self) -> None:
        """Take the folder, unless there is a run; one killed before it began does not count."""
        try:
            # exclusive, so that of two processes only one can have the folder
            self.status_file.open("x").close()
        except FileExistsError:
            record = self.status()
            # the trace of a cell that failed elsewhere may be by a launcher that goes on
            going = record.get("status") == "running" and _alive(record)
            if self.config.exists() or going:
                raise ConfigError(
                    f"{self.path} already holds a run; continue it with resume={self.path}, "
                    "or choose another hydra.run.dir"
                ) from None
        self.set_status("running")

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with: no folder, and no trace of one that never began."""
        # a checkpoint alone is a run whose configuration was lost
        exists = self.config.exists() or self.last.exists()
        return exists and self.status().get("begun", True)

    def is_stacked(self) -> bool:
        """Tell whether the run was begun as a member of a stack."""
        return self.begun and bool(self.metadata().get("stacked"))

    def record_failure(
        self, status: str, reason: str, config: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        """Leave a trace of a cell that could not begin, unless it has begun after all.

        Args:
            status: ``failed`` or ``refused``.
            reason: why, a traceback where it is a fault of code.
            config: as YAML; empty where it could not be composed.
            facts: what joins the metadata.
        """
        if self.begun:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_json(self.METADATA, {**_metadata(), **(facts or {})})
        if config:
            write_atomic(self.config, config)
        self.set_status(status, reason, begun=False)

    def read_refusal(self) -> str | None:
        """Read why a cell cannot work; None where there is no trace of one that could not."""
        with contextlib.suppress(ConfigError):  # it is told where the folder is read as a run
            record = self.status()
            if record.get("status") == "refused" and not record.get("begun", True):
                return str(record.get("reason", ""))
        return None

    def discard(self) -> None:
        """Take back the files of a run that was refused before it began."""
        for name in (*self.OWN, self.STATUS):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.last.parent, self.figures, self.path):
            with contextlib.suppress(OSError):  # what else is in it stays
                folder.rmdir()

    def find_damage(self, only: Collection[Path] = ()) -> dict[Path, str]:
        """Find the files that a run must have as far as it has come, and that are lost or broken.

        A look at both ends of a file, so that a sweep of thousands can afford it; JSON is read.

        Args:
            only: the files to look at; by default all.

        Returns:
            What is wrong with each.
        """
        record = self.status()
        ended = record.get("status") in ENDED
        least = record.get("metrics_bytes", 0) if ended else 0
        last = self.last.exists()
        checks: list[tuple[Path, Callable[[Path], str]]] = [
            (self.config, _find_fault_of_config),
            (self.path / self.METADATA, self._find_fault_of_json),
        ]
        if not record:
            checks.append((self.status_file, self._find_fault_of_json))
        if ended:
            checks.append((self.summary_file, self._find_fault_of_json))
        if ended or last:
            # rows may be torn by the kill that cut a run off
            check = partial(find_fault, whole=ended, start=b"step,", least=least)
            checks.append((self.metrics, check))
        # without either, somebody took the weights away: what was measured stands
        if (last and record.get("status") == "finished") or self.best.exists():
            checks.append((self.best, partial(find_fault, start=b"PK", whole=False)))
        if ended and last:
            checks.append((self.last, partial(find_fault, start=b"PK", whole=False)))
        looked_at = [pair for pair in checks if not only or pair[0] in only]
        return {path: fault for path, check in looked_at if (fault := check(path))}

    def _find_fault_of_json(self, path: Path) -> str:
        try:
            # what cannot be told from an empty one is looked at once more
            return "" if self._read_json(path.name) else find_fault(path, whole=False)
        except ConfigError as error:
            return find_fault(path, whole=False) or str(error).removeprefix(f"{path} ")

    def repair(self, config: str = "") -> bool:
        """Put what is damaged aside and tell of it, so that the run can go on without.

        Args:
            config: what ``config.yaml`` is to hold, where that is known.

        Returns:
            Whether something of it can be had again by going on.
        """
        then = {
            self.path / self.METADATA: "written anew",
            self.status_file: "the run goes on from its last checkpoint",
            self.summary_file: "measured again",
            self.metrics: "begun anew",
            self.best: "written again",
        }
        self.tell_losses()
        damage = self.find_damage()
        if self.status().get("status") in ENDED:
            damage.pop(self.metrics, None)
        damage = {path: fault for path, fault in damage.items() if path in then}
        for path, fault in damage.items():
            tell_damage(path, fault, then[path])
        if config:
            fault = find_fault(self.config)
            if not fault:
                try:
                    self.load_config()
                except ConfigError as error:
                    fault = str(error).removeprefix(f"{self.config} ")
            if fault:
                tell_damage(self.config, fault, "written again")
            write_atomic(self.config, config)
        return bool(damage)

    def wants_figures(self, chosen: bool | None, seen: bool) -> bool:
        """Tell whether its figures are drawn now that the run has ended.

        Args:
            chosen: ``figures`` of its configuration; None leaves it to ``seen``.
            seen: whether somebody looks: who waits for a single run, or a logger that shows them.
        """
        wanted = seen if chosen is None else chosen
        # those of an earlier look, by `truerisk draw`, would pass for those of the end
        return wanted or any(self.figures.glob("*.png"))

    def tell_losses(self) -> None:
        """Tell what a run that has ended has lost for good."""
        then = {
            self.metrics: (
                "the curves of the run are lost, and reports do not count it; to train it again, "
                "delete its folder"
            ),
            self.last: "the run cannot be trained on",
        }
        damage = self.find_damage(then)
        # asked last: of thousands of runs hardly one has lost anything
        if not damage or self.status().get("status") not in ENDED:
            return
        for path, fault in damage.items():
            print(f"{path} {fault}: {then[path]}", file=sys.stderr)
            DAMAGED.append(path)

    def reopen(self) -> None:
        """Go on with the run in this folder.

        Raises:
            ConfigError: there is no run, or it is still running.
        """
        if not self.config.exists():
            raise ConfigError(f"resume: {self.path} is not the folder of a run (no config.yaml)")
        status = self.status()
        if status.get("status") == "running" and _alive(status):
            raise ConfigError(
                f"resume: the run in {self.path} is still going (process {status['pid']})"
            )
        self.seconds = status.get("seconds", 0.0)
        for folder in (self.last.parent, self.figures):
            folder.mkdir(exist_ok=True)
        for torn in self.last.parent.glob("*.part"):
            torn.unlink()

    def load_config(self) -> DictConfig:
        """Read ``config.yaml``.

        Raises:
            ConfigError: it is no YAML, or no configuration.
        """
        from omegaconf import OmegaConf
        from yaml import YAMLError, load

        from truerisk.core.yaml_files import YamlLoader

        try:
            with self.config.open(encoding="utf-8") as file:
                config = load(file, YamlLoader)
        except (YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{self.config} is damaged: {join_lines(error)}") from None
        # every run has seeds, which stand far down: what was cut off above may be YAML all the same
        if not isinstance(config, dict) or "seed" not in config:
            raise ConfigError(f"{self.config} is damaged: it holds no configuration of a run")
        return OmegaConf.create(config)

    def metadata(self) -> dict[str, Any]:
        """The run's id, command, versions, hardware, seeds, and the shape of its data."""
        return self._read_json(self.METADATA)

    def read_facts(self) -> dict[str, Any]:
        """Read the metadata of a run that has begun.

        Raises:
            ConfigError: they are lost.
        """
        facts = self.metadata()
        if "data" not in facts:
            raise ConfigError(
                f"{self.path / self.METADATA} is lost: truerisk train resume={self.path} writes it "
                "anew"
            )
        return facts

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write the metadata of a run that has lost them; others stay as they are."""
        if not self.metadata():
            self._write_json(self.METADATA, {**_metadata(), **facts})

    def note_contents(self, contents: Mapping[str, str]) -> None:
        """Tell on stderr what has changed since the run began; what has not is left as it was.

        Args:
            contents: digests by file or module, as the run finds them now.
        """
        facts = self.metadata()
        changed = list_changed(facts.get("contents", {}), contents)
        if not self.last.exists():
            # it begins anew, and so learns from nothing but what stands there now
            self._write_json(self.METADATA, {**facts, "contents": dict(contents)})
        elif changed:
            print(
                f"{', '.join(changed)} changed after the run in {self.path} had begun: what it "
                "learned before stays in it",
                file=sys.stderr,
            )

    @property
    def id(self) -> str:
        """The run's identity, which loggers keep over restarts."""
        return self.metadata()["id"]

    def status(self) -> dict[str, Any]:
        """``status`` (running, finished, diverged, failed, interrupted), ``reason`` and more."""
        try:
            return self._read_json(self.STATUS)
        except ConfigError:  # `find_damage` tells; the run counts as one that was cut off
            return {}

    def set_status(
        self, status: str, reason: str = "", stop: Stop | None = None, begun: bool = True
    ) -> None:
        """Record how the run is doing, how long it took so far, and which process says so.

        Args:
            status: running, finished, diverged, failed, interrupted or refused.
            reason: a sentence for people; by default that of ``stop``.
            stop: why a run ended before its time, for programs.
            begun: whether there is a run to go on with.
        """
        pid, seconds = os.getpid(), self.seconds + time.monotonic() - self._opened
        reason = reason if stop is None else stop.describe()
        record = {"status": status, "reason": reason, "seconds": round(seconds, 3), "pid": pid}
        record |= {} if stop is None else {"stop": stop._asdict()}
        record |= {"together": self.together} if self.together > 1 else {}
        record |= {} if begun else {"begun": False}
        if status in ENDED and self.metrics.is_file():
            record["metrics_bytes"] = self.metrics.stat().st_size  # so that a shorter one is told
        who = {"began": _began(pid), "host": socket.gethostname(), "time": _now()}
        job = {"job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
        record |= who | job
        try:
            self._write_json(self.STATUS, record)
        except OSError as error:
            if error.errno not in NO_ROOM or not self.status_file.is_file():
                raise
            self._overwrite_status(record)

    def _overwrite_status(self, record: Mapping[str, Any]) -> None:
        """Write a status in the place of the old one, which takes no room on a full disk."""
        text = json.dumps(spell_numbers(record), allow_nan=False) + "\n"
        with naming_file(self.status_file), self.status_file.open("r+b") as file:
            # blanks over what is left of a longer one; then one call, so that none is torn
            file.write(text.encode().ljust(self.status_file.stat().st_size))

    def touch(self) -> None:
        """Give a sign of life."""
        with contextlib.suppress(OSError):
            os.utime(self.status_file)

    def changed(self) -> float:
        """When the run gave its last sign of life, by the file system's clock."""
        return self.status_file.stat().st_mtime

    def summary(self) -> dict[str, Measured]:
        """What was measured at the best weights, by name."""
        stored = self._read_json(self.SUMMARY)
        # a name is kept once, however many runs are read
        return {sys.intern(name): read_measured(m) for name, m in stored.items()}

    def measured(self, name: str) -> Measured:
        """One of the numbers of `summary`.

        Raises:
            KeyError: it was not measured.
        """
        return read_measured(self._read_json(self.SUMMARY)[name])

    def write_summary(self, summary: Mapping[str, Measured]) -> None:
        """Record what was measured at the best weights."""
        rows = {name: m._asdict() for name, m in summary.items()}
        for row in rows.values():
            if row["size"] is None:  # as it was before there were sizes
                del row["size"]
            if isinstance(row["stderr"], float) and math.isnan(row["stderr"]):
                row["stderr"] = "nan"  # null is that of an exact number
        self._write_json(self.SUMMARY, rows)

    def tables(self) -> dict[str, Any]:
        """Metrics that are tables, such as a confusion matrix, by name and split."""
        return self._read_json(self.TABLES)

    def write_tables(self, tables: Mapping[str, Any]) -> None:
        """Record metrics that are tables."""
        self._write_json(self.TABLES, tables)

    def losses(self) -> dict[str, np.ndarray]:
        """Loss and error of each sample of the tested fold, and its group; empty without folds."""
        import numpy as np

        try:
            with np.load(self.path / self.LOSSES) as stored:
                return dict(stored)
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            file = self.path / self.LOSSES
            raise ConfigError(f"{file} is not readable: {read_message(error)}") from None

    def write_losses(self, losses: Mapping[str, np.ndarray]) -> None:
        """Record the loss of each sample of a tested fold."""
        import numpy as np

        with replacing(self.path / self.LOSSES) as part, part.open("wb") as file:
            np.savez_compressed(file, **losses)  # type: ignore[arg-type]

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.path / name, content)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            # as bytes: a decoder of a file's own costs as much as what it decodes
            content = json.loads(path.read_bytes().decode() or "{}")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, OSError) as error:  # of bytes that are no text, too
            raise ConfigError(f"{path} is not readable JSON: {read_message(error)}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{path} is not readable JSON: it holds no names")
        return content


class RunSnapshot(RunFolder):
    """A run's folder for one look at all of it: each JSON file is read but once."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._known: dict[str, dict[str, Any]] = {}

    def _read_json(self, name: str) -> dict[str, Any]:
        if name not in self._known:
            self._known[name] = super()._read_json(name)
        return self._known[name]


def _find_fault_of_config(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = path.read_bytes()
        # every configuration has this key; to parse all of it takes a hundred times as long
        if text.endswith(b"\n") and b"data:" in text:
            return ""
    return find_fault(path) or "is damaged"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _alive(status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a status is still there, and not another with its number."""
    if status.get("host") != socket.gethostname() or status["pid"] == os.getpid():
        return False
    try:
        # signal 0 is not sent: it only asks whether the process is there
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return status.get("began") == _began(status["pid"])


def _began(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty for a zombie, or without ``/proc``."""
    try:
        # after the last bracket, as a program's name may hold spaces and brackets
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _metadata() -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex[:12],
        "started": _now(),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git_commit(Path.cwd()),
        "hardware": _hardware(),
    }


@cache
def _versions() -> dict[str, str]:
    from truerisk import __version__

    # not as it is installed: what runs may be a checkout
    found = {"truerisk": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git_commit(folder: Path) -> str | None:
    """The commit of a folder as this process found it, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


@cache
def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
    }
