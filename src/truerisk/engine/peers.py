"""Processes that srun or torchrun has started for one run: one opens it, and all end together."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, NamedTuple

import torch

from truerisk.core.errors import ConfigError, ProcessLost, UserError, first_line
from truerisk.engine.host import spans_processes
from truerisk.outcome import EXIT, INTERRUPTED
from truerisk.run import RunFolder

GRACE = 5.0
"""Seconds that a process has to end by itself once it is known that the run has ended."""
PATIENCE = timedelta(minutes=5)
"""In which all processes of a job must have come."""


class Place(NamedTuple):
    """Where a process stands among those that were started together."""

    address: str
    port: int
    rank: int
    size: int
    local_rank: int
    node_rank: int


def find_place() -> Place | None:
    """Read from the environment where this process stands; None where it was started alone.

    A batch script is no task: there srun has not been used, whatever ``SLURM_NTASKS`` says.
    """
    of = os.environ
    if "TORCHELASTIC_RUN_ID" in of:
        found = [int(of[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")]
        place = Place(of["MASTER_ADDR"], int(of["MASTER_PORT"]), *found)
    elif "SLURM_STEP_ID" in of and "SLURM_PROCID" in of:
        keys = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
        nodes = of.get("SLURM_STEP_NODELIST", of.get("SLURM_NODELIST", "127.0.0.1"))
        # of a[1-2,5],b it is a1
        first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes).split(",")[0]
        address = of.get("MASTER_ADDR") or _find_address(first)
        # below the range from which systems give out ports; steps of a job run side by side
        port = 15000 + (31 * int(of["SLURM_JOB_ID"]) + int(of["SLURM_STEP_ID"])) % 15000
        port = int(of.get("MASTER_PORT", port))
        place = Place(address, port, *[int(of[key]) for key in keys])
    else:
        return None
    return place if place.size > 1 else None


def _find_address(node: str) -> str:
    """Find how a node of SLURM's is reached: by its name, or by the address that SLURM knows."""
    with suppress(OSError):
        socket.getaddrinfo(node, None)
        return node
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.check_output(["scontrol", "show", "node", "-o", node], text=True)
        if match := re.search(r"\bNodeAddr=(\S+)", told):
            return match[1]
    return node


class Peers:
    """The processes of a job, each with a connection to the first of them.

    The first one opens a run as a single process would, in a folder that it tells the others at
    once. When it begins to train they join it there; at the end it tells them the exit code. A
    connection that breaks before that is a process that was killed, and nobody waits for it.

    Args:
        place: of this process.

    Raises:
        ProcessLost: the others have not come.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.rank = place, place.rank
        self.code, self.fault, self.folder = 0, "", ""
        self.told: dict[str, Any] = {}
        """What the first process has said of the run at hand: where it is, or how it has ended."""
        self._links, self._depth = _connect(place), 0
        self._watch: threading.Thread | None = None
        self._news, self._leaving = threading.Event(), threading.Event()

    def hear(self) -> dict[str, Any]:
        """Wait for the first process: it opens a run, or ends without one."""
        while not self.told:
            said = _receive(self._links[0])
            if said is None:
                self.told, self.fault = {"code": 1}, f"process 0 of {self.place.size} was killed"
                if self.rank == 1:
                    self._tell_lost(self.folder)
            elif "opens" in said:
                self.folder = said["opens"]
            else:
                self.told = said
        return self.told

    def name_folder(self, folder: str) -> None:
        """Take down where the run is; where the first process dies, the next one writes it there.

        Args:
            folder: of the run, which need not have begun.
        """
        if self.rank == 0 and folder != self.folder:
            self._tell({"opens": folder})
        self.folder = folder

    def join_run(self) -> bool:
        """Wait, on all but the first process, for a run to join; False where nothing is left to do.

        Raises:
            SystemExit: the first process has failed before there was one.
        """
        if self.rank == 0 or "code" not in self.hear():
            return True
        if self.told["code"]:
            raise SystemExit(self.told["code"])
        return False

    def open_run(self, devices: Any, nodes: int) -> int:
        """Let all begin to train, in the folder of the first process.

        Args:
            devices: on each machine, as ``trainer`` asks for.
            nodes: machines.

        Returns:
            How many devices there are on each.

        Raises:
            ConfigError: these are not the processes that were started.
        """
        size = self.place.size
        if self.rank == 0:
            asked = size if devices == "auto" else int(devices) * nodes
            if asked != size or asked % nodes:
                raise ConfigError(
                    f"trainer.devices={devices} on trainer.num_nodes={nodes} is not what was "
                    f"started, {size} processes: the product must be that number"
                )
            with socket.create_server(("", 0)) as free:
                self.told = {"folder": self.folder, "port": free.getsockname()[1]}
            self._tell(self.told)
        self.join_run()
        # what Lightning reads of processes that it has not started. Each run has a port, and so a
        # store, of its own: not that of torchrun's agent, which outlives a run
        told = {"MASTER_ADDR": self.place.address, "MASTER_PORT": str(self.told["port"])}
        told |= {"LOCAL_RANK": str(self.place.local_rank), "NODE_RANK": str(self.place.node_rank)}
        os.environ.update(told)
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        self._watch = threading.Thread(target=self._watch_others, daemon=True)
        self._watch.start()
        return size // nodes

    @contextmanager
    def run_together(self) -> Iterator[Peers]:
        """One run of all processes; blocks within it are of the same run.

        Raises:
            ProcessLost: another process has failed or was killed; on the first one.
            SystemExit: the run has failed; on the others.
        """
        if self._depth == 0:
            self.code, self.fault, self.folder, self.told = 0, "", "", {}
            self._watch = None
            self._news.clear()
            self._leaving.clear()
        self._depth += 1
        try:
            yield self
        except BaseException as error:
            self._end_badly(error)
            raise
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._close()

    def _end_badly(self, error: BaseException) -> None:
        """Let the others know, and raise what is known of why it broke off."""
        self.code = _find_code(error)
        if self.rank == 0:
            if self.find_fault(error) and not isinstance(error, ProcessLost):
                raise ProcessLost(self.fault) from error
        elif self._watch is not None and not self._leaving.is_set():
            said = str(error)
            if not isinstance(error, UserError):
                said = traceback.format_exc()
            self._leaving.set()
            self._tell({"fault": said, "code": self.code})
            self._news.wait(GRACE)
            raise SystemExit(self.told.get("code") or self.code) from error

    def find_fault(self, error: BaseException) -> str:
        """Say which other process made this one break off; empty where none did.

        Args:
            error: what a collective operation raises, perhaps, once a process is gone.
        """
        strange = isinstance(error, Exception) and not isinstance(error, UserError)
        if strange and self.rank == 0 and self._watch is not None:
            self._news.wait(1.0)  # a broken connection may be noticed here first
        # where all break off for one reason, it is this process's own
        own = f"{type(error).__name__}: {error}".removesuffix(": ")
        return "" if self.fault.rstrip().endswith(own) else self.fault

    def _close(self) -> None:
        """End the run on all processes: the first one's exit code is everyone's."""
        good = self.rank > 0 and self._watch is not None and not self._leaving.is_set()
        self._leaving.set()
        if self.rank == 0:
            self._tell({"code": self.code})
        elif good:
            self._tell({"done": self.rank})
        if self._watch is not None:
            # each has read all that was said of this run, before there is another
            self._watch.join(GRACE)
        if self.rank > 0:
            self.code = self.told.get("code", 1)
            if self.code:
                # torchrun ends the first process when another has failed: it speaks before that
                self._links[0].poll(GRACE)
        if self.code == 0 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _tell(self, what: dict[str, Any]) -> None:
        for link in self._links.values():
            with suppress(OSError):  # it is gone
                link.send_bytes(json.dumps(what).encode())

    def _watch_others(self) -> None:
        """Wait for what the others say last; end this process where it would wait for the dead."""
        left = {link: rank for rank, link in self._links.items()}
        while left:
            ended: list[Any] = wait(list(left))
            for link in ended:
                rank = left.pop(link)
                said = _receive(link)
                if self.rank > 0:
                    self.told = {**self.told, **(said or {"code": 1})}
                if said is None or "fault" in said:
                    what = f"process {rank} of {self.place.size} "
                    what += "was killed" if said is None else f"failed: {said['fault']}"
                    self.fault = self.fault or what
                    self.code = (said or {}).get("code", 1)
                elif self.rank == 0:
                    continue
                self._news.set()
                threading.Thread(target=self._leave_late, daemon=True).start()

    def _leave_late(self) -> None:
        """End this process, unless it does so by itself: it may wait in a collective operation."""
        orphan = self.rank == 1 and bool(self.fault)
        if orphan:
            self._tell_lost(self.told.get("folder"))
        if self._leaving.wait(GRACE):
            return
        if self.rank == 0:
            self._tell_lost(self.told.get("folder"))
            self._tell({"code": self.code})
        sys.stdout.flush()
        os._exit(self.told.get("code", self.code))

    def _tell_lost(self, folder: str | None) -> None:
        """Write into the run's folder why it ended, in place of a process that cannot."""
        print(f"error: {self.fault}", file=sys.stderr, flush=True)
        if folder:
            run = RunFolder(folder)
            if run.status().get("status") == "running":
                run.set_status("failed", self.fault)


def _receive(link: Connection) -> dict[str, Any] | None:
    """Return a message; None where the process at the other end is gone."""
    try:
        message: dict[str, Any] = json.loads(link.recv_bytes())
    except (EOFError, OSError):
        return None
    return message


def _connect(place: Place) -> dict[int, Connection]:
    """Connect the first process with each other one, which the rendezvous tells where it is."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    others = [f"here/{rank}" for rank in range(1, place.size)]
    try:
        store = torch.distributed.PrefixStore(
            f"truerisk/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}",
            torch.distributed.TCPStore(
                place.address,
                place.port,
                is_master=place.rank == 0 and not agent,
                timeout=PATIENCE,
                wait_for_workers=False,
            ),
        )
        if place.rank > 0:
            store.set(f"here/{place.rank}", "")
            port, key = json.loads(store.get("link"))
            link = Client((place.address, port), authkey=key.encode())
            link.send_bytes(json.dumps({"rank": place.rank}).encode())
            store.set(f"linked/{place.rank}", "")
            return {0: _keep_alive(link)}
        store.wait(others)
        key = secrets.token_hex(16)
        with Listener(("", 0), backlog=place.size, authkey=key.encode()) as listener:
            store.set("link", json.dumps([listener.address[1], key]))
            links = [_keep_alive(listener.accept()) for _ in others]
        return {json.loads(link.recv_bytes())["rank"]: link for link in links}
    except (torch.distributed.DistError, RuntimeError, OSError, EOFError) as error:
        raise ProcessLost(
            f"process {place.rank} of {place.size} cannot meet the others at {place.address}, "
            f"port {place.port} ({first_line(error)}); MASTER_ADDR and MASTER_PORT name another "
            "place"
        ) from error


def _keep_alive(link: Connection) -> Connection:
    """Have the system notice a machine that is gone, as it does a process."""
    with socket.socket(fileno=os.dup(link.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                same.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return link


def _find_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED["SIGINT"]
    return EXIT["refused"] if isinstance(error, UserError) else EXIT["failed"]


def refuse_sweep(trainers: Iterable[Mapping[str, Any]]) -> None:
    """Refuse runs of several processes in a sweep that several processes were started for.

    Args:
        trainers: the ``trainer`` nodes of its cells.

    Raises:
        ConfigError: there is such a run; on the first of the processes.
        SystemExit: on the others.
    """
    place = find_place()
    if place is None or not any(map(spans_processes, trainers)):
        return
    if place.rank > 0:
        raise SystemExit(EXIT["refused"])
    raise ConfigError(
        f"{place.size} processes were started for a sweep of runs that each take several: start "
        "one, which starts those of each run (hydra/launcher=submitit_slurm "
        f"hydra.launcher.tasks_per_node={place.size} in SLURM), or give each run a command"
    )


_joined: list[Peers] = []


def join_peers(trainer: Mapping[str, Any]) -> Peers | None:
    """Meet the other processes of a run; None where there are none, or Lightning is to start them.

    Args:
        trainer: the ``trainer`` node of a configuration.
    """
    place = find_place()
    if place is None:
        return None
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    together = spans_processes(trainer)
    # tasks that have nothing to do with each other are each the first process of its run
    rank_zero_only.rank = place.rank if together else 0  # type: ignore[attr-defined]
    if not together:
        return None
    if not _joined:
        _joined.append(Peers(place))
    return _joined[0]


@contextmanager
def run_with_peers(trainer: Mapping[str, Any]) -> Iterator[Peers | None]:
    """Run one run, with the processes that were started for it, where there are any.

    Args:
        trainer: the ``trainer`` node of its configuration.
    """
    peers = join_peers(trainer)
    if peers is None:
        yield None
    else:
        with peers.run_together():
            yield peers


def find_fault(error: BaseException) -> str:
    """Say which other process of the run made this one break off; empty where none did.

    Args:
        error: what this process has met.
    """
    return _joined[0].find_fault(error) if _joined else ""
