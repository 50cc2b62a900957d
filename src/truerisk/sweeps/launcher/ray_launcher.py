"""Cells, or stacked groups of them, as tasks of a Ray cluster, or of Ray on this machine."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, Interrupted, join_lines, read_message
from truerisk.engine.signals import SIGNALS
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import (
    CellWork,
    Launcher,
    SerialLauncher,
    WorkShare,
    tell_far,
    tell_lost,
)
from truerisk.sweeps.launcher.vectorized import Vectorized
from truerisk.sweeps.sweep_cell import SweepCell

LOOK = 1.0
"""Seconds after which Python has a look at its signals, while tasks are waited for."""
ANSWER = 10.0
"""Seconds in which the head of a cluster must answer."""


class RayLauncher(Launcher):
    """``hydra/launcher=ray``: Ray places tasks by the CPUs and GPUs that each is given.

    A task whose worker or machine is lost is done again, and goes on from its checkpoints.

    Args:
        address: of a cluster, as Ray names it, or ``auto``; None starts Ray here, for this sweep.
        cpus: of each task.
        gpus: of each task; it sees these alone.
        stacked: whether cells that differ in nothing but numbers are one task.
        retries: how often a task is done again.

    Raises:
        ConfigError: Ray is not installed, or an option takes no such value.
    """

    passes_signals = True

    def __init__(
        self,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
        stacked: bool = False,
        retries: int = 3,
    ) -> None:
        check_float("hydra.launcher.cpus", cpus)
        check_float("hydra.launcher.gpus", gpus)
        check_int("hydra.launcher.retries", retries, -1)  # without end
        if not isinstance(stacked, bool):
            raise ConfigError(f"hydra.launcher.stacked must be true or false, not {stacked!r}")
        if not isinstance(address, str | None):
            words = "must be an address, auto or null"
            raise ConfigError(f"hydra.launcher.address {words}, not {address!r}")
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs Ray: pip install 'truerisk[ray]'")
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self.needs = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
        self.inner: Launcher = Vectorized() if stacked else SerialLauncher()
        self._left: dict[Any, list[SweepCell]] = {}

    def group_cells(self, cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
        """Say which cells are a task: each, or those that stack."""
        return self.inner.group_cells(cells)

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Hand out the tasks, and wait for them as they end.

        Raises:
            ConfigError: there is no such cluster, or no machine that a task fits on.
        """
        with connect(self.address) as ray:
            try:
                task = ray.remote(**self.needs)(run_share)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"hydra.launcher: Ray says: {read_message(error)}") from error
            self._check_room(ray)
            for share in self.share_works(works):
                if self.stopped:
                    break
                ticket = task.remote(WorkShare(share, self.inner), os.getcwd(), self.gpus > 0)
                self._left[ticket] = [work.cell for work in share]
            if self.stopped:  # while a task was handed out
                self.stop_cells(self.stopped)
            while self._left:
                for ticket in ray.wait(list(self._left), timeout=LOOK)[0]:
                    cells = self._left.pop(ticket)
                    yield from zip(cells, self._receive(ray, ticket, cells), strict=True)

    def stop_cells(self, name: str) -> None:
        """Pass a signal on, as Ctrl-C: tasks that have begun save their cells."""
        import ray

        # the last first: one that waits would take the room of one that ends
        for ticket in reversed(list(self._left)):
            ray.cancel(ticket, recursive=False)

    def _check_room(self, ray: Any) -> None:
        """Refuse what no machine has; a cluster may still grow."""
        rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(r.get("CPU", 0) >= self.cpus and r.get("GPU", 0) >= self.gpus for r in rooms):
            return
        most = ", ".join(f"{r.get('CPU', 0):g} and {r.get('GPU', 0):g}" for r in rooms)
        said = (
            f"hydra.launcher: no machine has {self.cpus:g} CPUs and {self.gpus:g} GPUs for a task"
        )
        if self.address is None:
            raise ConfigError(f"{said} (there are {most})")
        print(f"{said} (there are {most}): tasks wait for one that has", file=sys.stderr)

    def _receive(self, ray: Any, ticket: Any, cells: Sequence[SweepCell]) -> list[Outcome]:
        """Take a task's outcomes, and tell them: what workers print goes into Ray's own logs."""
        try:
            outcomes: list[Outcome] = ray.get(ticket)
        except ray.exceptions.RayError as error:
            if self.stopped:
                return [Outcome(math.nan, "interrupted", self.stopped) for _ in cells]
            return [tell_lost(cell, error) for cell in cells]
        return [outcome for _, outcome in tell_far(zip(cells, outcomes, strict=True))]


def run_share(share: WorkShare, folder: str, sees_gpus: bool) -> list[Outcome]:
    """Run a share in a worker of Ray's, once more where another one has begun it.

    Args:
        share: the cells.
        folder: that the sweep was started in.
        sees_gpus: whether the task was given any.
    """
    from truerisk.show.progress_line import silence_progress

    silence_progress()
    os.chdir(folder)
    if not sees_gpus:  # whatever this version of Ray does about none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return share.run_until_stopped()


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Join a cluster, or start one here that lasts as long as the block; yields Ray's module.

    Args:
        address: as Ray names it; None starts one, which keeps its files in a temporary folder.

    Raises:
        ConfigError: there is no such cluster.
    """
    # it would write a file into the home folder, and ask over the network
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # by a program of the user's, who ends it
        yield ray
        return
    place = re.fullmatch(r"([^:/]+):(\d+)", address or "")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # short: Ray makes sockets below it, whose paths may have a hundred letters
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        here = {"include_dashboard": False, "_temp_dir": folder} if address is None else {}
        try:
            if place is not None:  # where nobody answers, Ray asks for minutes
                socket.create_connection((place[1], int(place[2])), ANSWER).close()
            ray.init(address or "local", log_to_driver=False, logging_level="error", **here)
        except SystemExit as end:  # Ray's own answer to a signal that comes meanwhile
            raise Interrupted("SIGTERM") from end
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            said = join_lines(error)
            raise ConfigError(f"hydra.launcher.address={address}: {said}") from error
        for number, handler in handlers.items():  # Ray takes SIGTERM for itself
            signal.signal(number, handler)
        try:
            yield ray
        finally:
            ray.shutdown()
