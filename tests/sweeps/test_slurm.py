"""A sweep on a real SLURM, whose jobs are preempted and put back in line."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict

import pytest

from truerisk.cli import main
from truerisk.result import load_run

RECIPE = ["data=iris", "data.batch_size=30", "model.width=8", "checkpoint_seconds=0"]
RECIPE += ["report=false", "trainer.max_epochs=300", "risk.every=10"]


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


def test_preempted_jobs_go_on_in_their_folders(cluster, tmp_path, run, monkeypatch, capsys):
    asked = [*RECIPE, "study=s", "seed=1,2", "hydra/launcher=submitit_slurm"]
    asked += ["logger=[csv,wandb]", "logger.wandb.mode=offline"]
    asked += ["hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=30"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *asked]
    sweep = cluster.start(command, tmp_path)
    study = tmp_path / "outputs" / "s"
    first = awaited(lambda: going(study, 1))
    array = cluster.ask("squeue", "-h", "-o", "%F").split()[0]
    cluster.ask("scontrol", "requeue", f"{array}_0")  # SIGTERM: it saves itself
    second = awaited(lambda: going(study, 2))
    cluster.ask("scancel", "--signal=USR2", f"{array}_1")  # as before a time limit
    runs = {0: (1, first, first.run.id), 1: (2, second, second.run.id)}
    code, out = sweep.wait(400), (tmp_path / "output.txt").read_text()
    assert code == 0 and "2 runs: 2 finished\n" in out, out
    for job, (seed, before, identity) in runs.items():
        after = load_run(before.folder)
        assert (after.status, after.run.id) == ("finished", identity)
        restarts = cluster.ask("scontrol", "show", "job", f"{array}_{job}")
        assert "Restarts=1" in restarts, restarts
        parts = [part.name for part in (after.folder / "wandb").glob("offline-run-*")]
        assert len(parts) == 2 and all(name.endswith(f"-{identity}") for name in parts)
        alone = run(*RECIPE, f"seed={seed}", "checkpoint_seconds=60")
        assert alone.run.metrics.read_bytes() == after.run.metrics.read_bytes()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["train", "-m", *asked]) == 0
    assert capsys.readouterr().out == "2 runs: 2 finished (2 of them before)\n"


def test_a_group_is_one_job_that_goes_on(cluster, tmp_path, monkeypatch):
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
    here = [word for word in asked if not word.startswith("hydra.launcher.job")]
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *here, "hydra/launcher=vectorized", "study=here"]) == 0
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


@pytest.mark.parametrize(
    ("launcher", "option"),
    [("submitit_slurm", "partition"), ("vectorized_slurm", "job.partition")],
)
def test_what_sbatch_refuses_is_told_in_a_line(cluster, here, monkeypatch, capfd, launcher, option):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    asked = [f"hydra/launcher={launcher}", f"hydra.launcher.{option}=gpus", "seed=1,2", "study=w"]
    assert main(["train", "-m", *RECIPE, *asked]) == 2
    told = capfd.readouterr().err
    said = f"error: hydra/launcher={launcher}: sbatch says: invalid partition specified: gpus; "
    assert told.startswith(said) and told.count("\n") == 1
    assert not list((here / "outputs" / "w").glob("seed=*"))


def test_jobs_are_those_of_the_plan_in_its_order(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["data=iris", "trainer=cpu", "trainer.max_epochs=3", "study=n", "report=false"]
    timed = ["seed=0,1", "figures=false", "hydra/launcher=vectorized"]
    assert main(["train", "-m", *asked, *timed]) == 0
    asked += ["seed=range(9)", "figures=false", "hydra/launcher=vectorized_slurm"]
    asked += ["hydra.launcher.size=2", "hydra.launcher.job.timeout_min=10"]
    asked += ["hydra.launcher.job.partition=both", "hydra.launcher.job.cpus_per_task=2"]
    capsys.readouterr()
    assert main(["plan", "-m", *asked, "--nodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "as asked: 4 jobs of up to 2 cells" in out
    sweep = cluster.start([sys.executable, "-m", "truerisk", "train", "-m", *asked], tmp_path)
    code, out = sweep.wait(500), (tmp_path / "output.txt").read_text()
    assert code == 0 and "9 runs: 9 finished (2 of them before)\n" in out, out

    seeds = defaultdict(list)
    for seed in range(2, 9):
        (folder,) = (tmp_path / "outputs" / "n").glob(f"*seed={seed}-*")
        seeds[load_run(folder).run.status()["job"]].append(seed)
    lines = cluster.ask("scontrol", "--oneliner", "show", "job").splitlines()
    facts = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
    jobs = [job for job in facts if job["JobId"] in seeds]
    jobs.sort(key=lambda job: int(job["ArrayTaskId"]))
    assert [seeds[job["JobId"]] for job in jobs] == [[2, 3], [4, 5], [6, 7], [8]]
    starts = [job["StartTime"] for job in jobs]
    assert starts == sorted(starts) and {job["NodeList"] for job in jobs} == {"n1", "n2"}
    free = {"n1": "", "n2": ""}
    for job in jobs:  # to the second
        assert free[job["NodeList"]] <= job["StartTime"]
        free[job["NodeList"]] = job["EndTime"]
