"""Ray's workers, really started: a study, lost workers and machines, signals, what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import matplotlib
import pytest

from truerisk.cli import main
from truerisk.result import load_run

pytest.importorskip("ray", reason="Ray is large, and so no part of the extra for tests")

LONG = ["trainer.max_epochs=400", "hydra/launcher=ray", "figures=false"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder that nobody else writes to; Ray has read a token there, for all its starts."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def scratch(home, monkeypatch):
    """A temporary folder that nobody else writes to."""
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # which has the list of fonts
    monkeypatch.setenv("HOME", str(home))
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:  # Ray's sockets: short
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()  # a cluster writes its address there, and does not make it
        yield Path(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def when(true, act):
    """Act in another thread once something is true, however long that takes."""

    def watch():
        while not (found := true()):
            time.sleep(0.02)
        act(found)

    threading.Thread(target=watch, daemon=True).start()


def begun(here, seed):
    """The run of a seed once it has a checkpoint."""
    files = list(here.glob(f"outputs/s/*seed={seed}[-,]*/checkpoints/last.ckpt"))
    return load_run(files[0].parents[1]) if files else None


def values(run):
    return {name: measured.value for name, measured in run.summary.items()}


@pytest.mark.parametrize("stacked", [False, True])
def test_a_study(stacked, sweep, cells, tiny, here, scratch, capfd):
    ray = ["hydra/launcher=ray", f"hydra.launcher.stacked={str(stacked).lower()}"]
    assert sweep("seed=1,2", *ray) == 0
    out = capfd.readouterr().out
    assert [out.count(f"seed={seed}: finished, ") for seed in (1, 2)] == [1, 1]
    assert "2 runs: 2 finished\n" in out
    runs = cells()
    assert os.getpid() not in {run.run.status()["pid"] for run in runs.values()}
    assert [run.run.status().get("together", 1) for run in runs.values()] == [1 + stacked] * 2
    alone = tiny(here / "alone", ["seed=1"])
    assert values(runs["seed=1"]) == pytest.approx(values(alone), rel=1e-5)
    assert not list(scratch.glob("ray-*"))
    assert sweep("seed=1,2", *ray) == 0
    assert "2 runs: 2 finished (2 of them before)\n" in capfd.readouterr().out


def test_a_cell_whose_worker_is_killed_is_done_again(sweep, cells, here, tiny, capfd):
    pids = []

    def kill(run):
        pids.append(run.run.status()["pid"])
        os.kill(pids[0], signal.SIGKILL)

    when(lambda: begun(here, 1), kill)
    assert sweep("seed=1", *LONG) == 0
    assert "1 run: 1 finished\n" in capfd.readouterr().out
    (run,) = cells().values()
    assert run.run.status()["pid"] not in [*pids, os.getpid()]
    alone = tiny(here / "alone", ["seed=1", LONG[0], "figures=false"])
    assert run.run.metrics.read_bytes() == alone.run.metrics.read_bytes()


def test_a_cell_that_kills_every_worker_has_failed(sweep, here, capfd):
    when(lambda: begun(here, 1), lambda run: os.kill(run.run.status()["pid"], signal.SIGKILL))
    assert sweep("seed=1", *LONG, "hydra.launcher.retries=0") == 1
    out = capfd.readouterr().out
    assert ": failed (WorkerCrashedError: " in out and "1 run: 1 failed\n" in out


def test_a_machine_that_is_lost_costs_no_cell(sweep, cells, here, scratch, capfd):
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": str(scratch)})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()

        def lose(_):
            cluster.remove_node(second, allow_graceful=False)

        when(lambda: begun(here, 1) and begun(here, 2), lose)
        address = f"hydra.launcher.address='{cluster.address}'"
        assert sweep("seed=1,2", *LONG, address) == 0
        assert "2 runs: 2 finished\n" in capfd.readouterr().out
        assert len(cluster.list_all_nodes()) == 1
    finally:
        cluster.shutdown()
    assert {run.status for run in cells().values()} == {"finished"}


def test_a_cluster_whose_head_is_killed_costs_no_cell(cells, tiny, here, scratch):
    """Ray ends the sweep's process then; the same command goes on with what is left."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "temp_dir": str(scratch)}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    command = [sys.executable, "-m", "truerisk", "train", "-m", *tiny.overrides, "study=s"]
    longer = "trainer.max_epochs=1200"
    command += ["seed=1,2", *LONG[1:], longer]
    address = f"hydra.launcher.address='{cluster.address}'"
    hasty = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "1"}  # of 60 s
    quiet = subprocess.DEVNULL
    try:
        with subprocess.Popen([*command, address], env=hasty, stderr=quiet) as sweep:
            when(lambda: begun(here, 1), lambda _: cluster.head_node.kill_gcs_server(False))
            assert sweep.wait(180) != 0
    finally:
        cluster.shutdown()
    first = begun(here, 1).folder
    again = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0 and "2 runs: 2 finished" in again.stdout, again.stderr
    runs = cells()
    assert runs["seed=1"].folder == first
    assert len(list(here.glob("outputs/s/*/config.yaml"))) == 2
    alone = tiny(here / "alone", ["seed=1", longer, "figures=false"])
    assert runs["seed=1"].run.metrics.read_bytes() == alone.run.metrics.read_bytes()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_every_cell(name, sweep, cells, here, capfd):
    when(lambda: begun(here, 1), lambda _: os.kill(os.getpid(), signal.Signals[name]))
    with pytest.raises(SystemExit) as end:
        sweep("seed=1,2", "hydra/launcher=ray", "trainer.max_epochs=20000", "hydra.launcher.cpus=2")
    assert end.value.code == 128 + signal.Signals[name]
    assert "the same command again goes on" in capfd.readouterr().err
    (run,) = cells().values()
    assert run.status == "interrupted"


def test_ctrl_c_while_ray_starts_ends_the_sweep_before_it_begins(sweep, here, scratch):
    # SIGTERM is Ray's own then
    when(
        lambda: list(scratch.glob("ray-*/session_*")), lambda _: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(SystemExit) as end:
        sweep("seed=1,2", "hydra/launcher=ray", "trainer.max_epochs=20000")
    assert end.value.code == 128 + signal.SIGINT
    assert not list(here.glob("outputs/s/*/config.yaml"))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("gpus=99", "no machine has 1 CPUs and 99 GPUs for a task (there are "),
        (
            "address=127.0.0.1:1",
            "hydra.launcher.address=127.0.0.1:1: [Errno 111] Connection refused",
        ),
    ],
)
def test_what_cannot_be_is_refused(option, said, tiny, here, capfd):
    asked = ["train", "-m", *tiny.overrides, "seed=1", "hydra/launcher=ray"]
    assert main([*asked, f"hydra.launcher.{option}"]) == 2
    assert said in capfd.readouterr().err
