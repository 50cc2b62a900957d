from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from truerisk.cli import main
from truerisk.result import load_run

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if shutil.which(name) is None]
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=2000
PartitionName=test Nodes=n1 Default=YES MaxTime=60 State=UP
PartitionName=both Nodes=n1,n2 MaxTime=60 State=UP
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """The daemons of two nodes on this machine, and commands that talk to them."""

    def __init__(self, folder: Path) -> None:
        self.started = []
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir()
        key, conf = folder / "munge.key", folder / "slurm.conf"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        conf.write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(3)))
        self.environment = {**os.environ, "SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1"}
        munge = ["munged", "--force", "--foreground", f"--key-file={key}"]
        munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
        munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
        self.daemons = [self._daemon(*munge)]
        self._until(lambda: (folder / "munge.sock").exists())
        self.daemons.append(self._daemon("slurmctld", "-D", "-f", str(conf)))
        for node in ("n1", "n2"):
            self.daemons.append(self._daemon("slurmd", "-D", "-N", node, "-f", str(conf)))
        idle = ["idle", "idle"]
        self._until(lambda: self.ask("sinfo", "-h", "-N", "-p", "both", "-o", "%T").split() == idle)

    def _daemon(self, *command):
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=self.environment, stdout=quiet, stderr=quiet)

    def _until(self, true, seconds=30):
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                self.stop()
                pytest.skip("SLURM is installed, but does not start here")
            time.sleep(0.1)

    def start(self, command, here):
        output = (here / "output.txt").open("w")
        process = subprocess.Popen(command, cwd=here, env=self.environment, stdout=output)
        self.started.append(process)
        return process

    def ask(self, *command):
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture(scope="session")
def cluster():
    if MISSING or os.geteuid() != 0:
        why = ", ".join(MISSING) or "not root"
        pytest.skip(f"needs root and Debian's slurm-wlm and munge ({why})")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/slurm-XXXXXX"], text=True).strip())
    cluster = Cluster(folder)
    yield cluster
    for process in cluster.started:
        process.kill()
    cluster.ask("scancel", "--user=root")
    cluster.stop()
    shutil.rmtree(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(tiny, here):
    """Run a sweep of tiny recipes here, into the study ``s``."""

    def run(*overrides):
        return main(["train", "-m", *tiny.overrides, "study=s", "report=false", *overrides])

    return run


@pytest.fixture
def cells(here):
    """The runs of the study ``s``, by the readable part of their folders' names."""

    def read():
        folders = sorted((here / "outputs" / "s").glob("*-*/"))
        return {folder.name.rpartition("-")[0]: load_run(folder) for folder in folders}

    return read
