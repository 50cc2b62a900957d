"""Two processes of one run that SLURM or torchrun has started: one folder, one voice, one end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from truerisk import load_run, train
from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.engine.peers import Peers, Place, find_place

RECIPE = ["data=iris", "data.batch_size=30", "model.width=8", "optimizer=momentum"]
RECIPE += ["trainer.max_epochs=60", "risk.every=10", "checkpoint_seconds=0", "figures=false"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=64-true"]
TRAIN = ["truerisk", "train", *RECIPE]
STARTS = {
    # two nodes; torchrun and submitit on one
    "srun": [
        *("srun", "-p", "both", "-N2", "--ntasks-per-node=1", sys.executable, "-m", *TRAIN, *DDP),
        *("trainer.num_nodes=2", "trainer.devices=1"),
    ],
    "torchrun": [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", *TRAIN, *DDP),
    ],
    "submitit": [
        *(sys.executable, "-m", *TRAIN, *DDP, "-m", "study=s", "seed=0", "report=false"),
        *("hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2"),
        "hydra.launcher.timeout_min=10",
    ],
}
everywhere = pytest.mark.skipif(
    "TRUERISK_ALL_STARTS" not in os.environ, reason="seconds of two processes: a part is enough"
)


def only_run(here):
    (config,) = here.glob("outputs/*/*/config.yaml")
    return load_run(config.parent)


def find_process(here, rank):
    """The process of a rank that works here."""
    marks = (f"RANK={rank}", f"SLURM_PROCID={rank}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_text(errors="replace").split("\0")
            command = (process / "cmdline").read_text()
            ours = "python" in command and not command.startswith("srun")
            if ours and (process / "cwd").samefile(here) and not {*marks}.isdisjoint(words):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")


def end(process, here, seconds=300):
    code = process.wait(seconds)
    return code, (here / "output.txt").read_text()


TASK = {"SLURM_JOB_ID": "70", "SLURM_STEP_ID": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
TASK |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gone[03-04,7]"}
AGENT = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
AGENT |= {"MASTER_ADDR": "first", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        (TASK, Place("gone03", 15000 + 31 * 70 + 2, 1, 2, 0, 1)),
        ({**TASK, "MASTER_ADDR": "host", "MASTER_PORT": "9"}, Place("host", 9, 1, 2, 0, 1)),
        # a batch script, which no srun has multiplied, whatever it has been given
        ({"SLURM_JOB_ID": "70", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),
        # one task, which starts its processes itself
        ({**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (AGENT, Place("first", 29500, 3, 4, 1, 1)),
    ],
)
def test_the_environment_tells_who_was_started_together(variables, place, monkeypatch):
    for name in [*TASK, *AGENT]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_place() == place


def test_several_machines_need_a_starter(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.num_nodes=2: .*srun --nodes=2"):
        train([*RECIPE, *DDP, "trainer.num_nodes=2"], folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_run_of_a_first_process_that_is_killed_before_it_trains_has_failed(fork, tmp_path):
    """Between its folder and the first step; the others have not joined it yet."""

    def work(rank):
        os.environ.update(AGENT, WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
        os.environ.update(GROUP_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        Peers.open_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        train([*RECIPE, *DDP], folder=tmp_path / "run")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first, second = (fork(partial(work, rank), f"{rank}.txt") for rank in (0, 1))
    assert first.wait(60).code == -signal.SIGKILL
    end = second.wait(60)
    why = "process 0 of 2 was killed"
    assert (end.code, end.text) == (1, f"error: {why}\n")
    found = load_run(tmp_path / "run")
    assert (found.status, found.reason) == ("failed", why)


@pytest.mark.parametrize("option", ["trainer=ddp", "trainer=ddp,cpu"])
def test_a_sweep_of_such_runs_is_started_once(option, here, monkeypatch, capsys):
    command = ["train", "-m", *RECIPE, "seed=1", "trainer.devices=2", option]
    for rank, said in (("0", ["error: 2 processes were started for a sweep"]), ("1", [])):
        for name, value in {**TASK, "SLURM_PROCID": rank, "MASTER_ADDR": "a"}.items():
            monkeypatch.setenv(name, value)
        code, error = main_code(command), capsys.readouterr().err
        assert code == 2 and [line[:43] for line in error.splitlines()] == said
    assert not list(here.iterdir())


def main_code(command):
    try:
        return main(command)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("start", ["torchrun", "submitit", pytest.param("srun", marks=everywhere)])
def test_they_train_one_run_together(start, cluster, tmp_path, run):
    code, screen = end(cluster.start(STARTS[start], tmp_path), tmp_path)
    assert code == 0, screen
    assert screen.count("risk ± s.e.") == (start != "submitit")
    check_same(only_run(tmp_path), run(*RECIPE, "trainer.precision=64-true"))


@pytest.mark.parametrize(
    "start",
    [
        "srun",
        pytest.param("torchrun", marks=everywhere),
        pytest.param("submitit", marks=everywhere),
    ],
)
def test_one_that_is_killed_ends_all_and_the_run_goes_on(start, cluster, tmp_path, run):
    started = cluster.start(STARTS[start], tmp_path)
    limit = time.monotonic() + 300
    while not list(tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")):
        assert time.monotonic() < limit and started.poll() is None
        time.sleep(0.02)
    os.kill(find_process(tmp_path, 1), signal.SIGKILL)
    killed = time.monotonic()
    code, screen = end(started, tmp_path)
    assert code != 0 and time.monotonic() - killed < 20, screen
    before = only_run(tmp_path)
    assert (before.status, before.reason) == ("failed", "process 1 of 2 was killed")
    command = STARTS[start]
    if start != "submitit":
        command = [*command[: command.index("train") + 1], f"resume={before.folder}"]
    code, screen = end(cluster.start(command, tmp_path), tmp_path)
    assert code == 0, screen
    check_same(only_run(tmp_path), run(*RECIPE, "trainer.precision=64-true"))


def check_same(two, one):
    assert two.status == "finished"
    assert two.summary.keys() == one.summary.keys()
    for name, measured in one.summary.items():
        assert two.summary[name] == pytest.approx(measured, abs=1e-10), name
    mine, theirs = one.history, two.history
    assert list(mine.name) == list(theirs.name)
    assert theirs.value.to_numpy() == pytest.approx(mine.value.to_numpy(), abs=1e-10)
