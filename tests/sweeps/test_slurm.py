"""A sweep on a real SLURM of one node, whose jobs are preempted and put back in line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truerisk.result import load_run

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"needs root and Debian's slurm-wlm and munge ({', '.join(MISSING) or 'not root'})",
)
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
MpiDefault=none
ReturnToService=2
KillWait=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=60 State=UP
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
    """The daemons, and commands that talk to them."""

    def __init__(self, folder: Path) -> None:
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key, conf = folder / "munge.key", folder / "slurm.conf"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        conf.write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(2)))
        self.environment = {**os.environ, "SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1"}
        munge = ["munged", "--force", "--foreground", f"--key-file={key}"]
        munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
        munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
        self.daemons = [self._daemon(*munge)]
        self._until(lambda: (folder / "munge.sock").exists())
        self.daemons += [self._daemon(name, "-D", "-f", str(conf)) for name in DAEMONS[1:]]
        self._until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"))

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
        self.started = subprocess.Popen(command, cwd=here, env=self.environment, stdout=output)
        return self.started

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


@pytest.fixture(scope="module")
def cluster():
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/slurm-XXXXXX"], text=True).strip())
    cluster = Cluster(folder)
    yield cluster
    cluster.started.kill()
    cluster.ask("scancel", "--user=root")
    cluster.stop()
    shutil.rmtree(folder)


RECIPE = ["data=iris", "data.batch_size=30", "model.width=8", "checkpoint_seconds=0"]
RECIPE += ["report=false", "trainer.max_epochs=800", "risk.every=10"]


def going(study, seed):
    """The run of a seed, once it has a checkpoint of its own."""
    found = list(study.glob(f"seed={seed}-*/checkpoints/last.ckpt"))
    return load_run(found[0].parents[1]) if found else None


def awaited(find, seconds=120):
    end = time.monotonic() + seconds
    while (found := find()) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_preempted_jobs_go_on_in_their_folders(cluster, tmp_path, run):
    asked = [*RECIPE, "study=s", "seed=1,2", "hydra/launcher=submitit_slurm"]
    asked += ["logger=[csv,wandb]", "logger.wandb.mode=offline"]
    asked += ["hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=30"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *asked]
    sweep = cluster.start(command, tmp_path)
    study = tmp_path / "outputs" / "s"
    first = awaited(lambda: going(study, 1))
    cluster.ask("scontrol", "requeue", "1_0")  # SIGTERM: it saves itself
    second = awaited(lambda: going(study, 2))
    cluster.ask("scancel", "--signal=USR2", "1_1")  # as before a time limit
    runs = {"1_0": (1, first, first.run.id), "1_1": (2, second, second.run.id)}
    code, out = sweep.wait(400), (tmp_path / "output.txt").read_text()
    assert code == 0 and "2 runs: 2 finished\n" in out, out
    for job, (seed, before, identity) in runs.items():
        after = load_run(before.folder)
        assert (after.status, after.run.id) == ("finished", identity)
        restarts = cluster.ask("scontrol", "show", "job", job)
        assert "Restarts=1" in restarts, restarts
        parts = [part.name for part in (after.folder / "wandb").glob("offline-run-*")]
        assert len(parts) == 2 and all(name.endswith(f"-{identity}") for name in parts)
        alone = run(*RECIPE, f"seed={seed}")
        assert alone.run.metrics.read_bytes() == after.run.metrics.read_bytes()
    again = subprocess.run(
        command, cwd=tmp_path, env=cluster.environment, capture_output=True, text=True
    )
    assert again.stdout == "2 runs: 2 finished (2 of them before)\n", again.stderr


def test_a_group_is_one_job_that_goes_on(cluster, tmp_path):
    """Preempted, it ends as the same group does on this machine."""
    asked = [*RECIPE, "study=g", "trainer=cpu", "seed=1,2,3", "hydra.launcher.job.timeout_min=10"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *asked]
    command.append("hydra/launcher=vectorized_slurm")
    group = cluster.start(command, tmp_path)
    before = awaited(lambda: going(tmp_path / "outputs" / "g", 3))
    jobs = cluster.ask("squeue", "-h", "-o", "%i").split()
    assert len(jobs) == 1
    cluster.ask("scancel", "--signal=USR2", jobs[0])  # as before a time limit
    code, out = group.wait(400), (tmp_path / "output.txt").read_text()
    assert code == 0 and "3 runs: 3 finished\n" in out, out
    assert "Restarts=1" in cluster.ask("scontrol", "show", "job", jobs[0])
    after = load_run(before.folder)
    assert (after.status, after.reason, after.run.id) == ("finished", "", before.run.id)
    here = [*command[:-1], "hydra/launcher=vectorized", "study=here"]
    here = [word for word in here if not word.startswith("hydra.launcher.job")]
    subprocess.run(here, cwd=tmp_path, env=cluster.environment, check=True, capture_output=True)
    for run in map(load_run, (tmp_path / "outputs" / "g").glob("seed=*")):
        same = tmp_path / "outputs" / "here" / run.folder.name
        assert run.run.metrics.read_bytes() == (same / "metrics.csv").read_bytes()


def test_a_cell_that_does_not_stack_is_a_job_too(cluster, tmp_path):
    asked = ["data=iris", "trainer.max_epochs=2", "optimizer=lbfgs", "study=l", "seed=1"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *asked]
    alone = cluster.start([*command, "hydra/launcher=vectorized_slurm"], tmp_path)
    code, out = alone.wait(200), (tmp_path / "output.txt").read_text()
    assert code == 0 and "1 run: 1 finished\n" in out, out
    assert len(list((tmp_path / "outputs" / "l" / ".submitit").glob("*/*_result.pkl"))) == 1
