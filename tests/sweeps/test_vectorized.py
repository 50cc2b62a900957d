"""``hydra/launcher=vectorized``, from the command line to its last file."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from truerisk.cli import main
from truerisk.engine.stacked.backend import StackedBackend
from truerisk.result import load_run
from truerisk.run import RunFolder

TINY = ["data=iris", "data.batch_size=30", "model.width=4", "trainer.max_epochs=2"]


@pytest.fixture
def sweep(tmp_path, monkeypatch, undrawn, capfd):
    monkeypatch.chdir(tmp_path)

    def sweep(*more):
        args = ["train", "-m", *TINY, "hydra/launcher=vectorized", "study=s", *more]
        code = main(args)
        return code, capfd.readouterr()

    return sweep


@pytest.fixture
def read_metrics(tmp_path):
    """Read what the runs of a study have recorded, by their folders' names."""

    def read(study="s"):
        folders = (tmp_path / "outputs" / study).glob("*-*/")
        return {path.name: (path / "metrics.csv").read_bytes() for path in folders}

    return read


def test_a_sweep_is_trained_together_and_the_rest_by_itself(sweep, tmp_path):
    code, said = sweep("seed=range(3)", "optimizer=adam,muon", "optimizer.lr=0.01")
    assert code == 0
    lines = [line for line in said.err.splitlines() if "Muon has no update" in line]
    assert len(lines) == 1 and lines[0].startswith("seed=0,optimizer=muon and 2 more by themselves")
    assert "6 runs: 6 finished" in said.out
    runs = [load_run(path) for path in (tmp_path / "outputs" / "s").glob("*-*/")]
    assert {run.status for run in runs} == {"finished"} and len(runs) == 6
    code, said = sweep("seed=range(4)", "optimizer=adam", "optimizer.lr=0.01")
    assert code == 0 and "4 runs: 4 finished (3 of them before)" in said.out


@pytest.mark.parametrize("processes", [1, 2])
def test_data_too_large_to_hold_is_read_by_each_run(sweep, processes, monkeypatch):
    """As its loading finds: configurations do not tell its size."""
    monkeypatch.setattr("truerisk.data.run_data.MEMORY", 0)
    code, said = sweep("seed=range(3)", f"hydra.launcher.processes={processes}")
    assert code == 0 and "3 runs: 3 finished" in said.out
    (line,) = [line for line in said.err.splitlines() if "by themselves" in line]
    assert line.startswith("seed=0 and 2 more by themselves, as its samples are more than 2 GiB")
    assert "Traceback" not in said.err and "failed" not in said.err


def test_the_line_of_progress_tells_which_of_several_groups_it_is(sweep):
    code, said = sweep("seed=range(2)", "model.width=3,4,5")
    assert code == 0 and "6 runs: 6 finished" in said.out
    ends = [line.split(",")[0] for line in said.err.splitlines() if "100%" in line]
    assert ends == [f"group {i} of 3: 2 cells" for i in (1, 2, 3)]


def test_processes_share_a_group(sweep, read_metrics):
    code, said = sweep("seed=range(5)", "hydra.launcher.processes=2")
    assert code == 0 and "5 runs: 5 finished" in said.out
    shared = read_metrics()
    assert sweep("seed=range(5)", "study=alone")[0] == 0
    assert shared == read_metrics("alone") and len(shared) == 5


def test_groups_are_trained_side_by_side(sweep, read_metrics, tmp_path):
    """None of them is divided: each has a process of its own."""
    axes = ["seed=range(3)", "model.width=4,6"]
    code, said = sweep(*axes, "hydra.launcher.processes=2")
    assert code == 0 and "2 groups: 6 cells, 100%" in said.err
    runs = [load_run(path).run for path in tmp_path.glob("outputs/s/*-*/")]
    pids = {run.status()["pid"] for run in runs if "width" in run.path.name}
    others = {run.status()["pid"] for run in runs if "width" not in run.path.name}
    assert len(pids) == len(others) == 1 and len({*pids, *others, os.getpid()}) == 3
    shared = read_metrics()
    assert sweep(*axes, "study=alone")[0] == 0
    assert shared == read_metrics("alone") and len(shared) == 6


@pytest.mark.parametrize("deaths", [1, 6])
def test_a_share_whose_process_is_killed_is_begun_again(
    deaths, sweep, read_metrics, tmp_path, monkeypatch
):
    """… to the same bits; one that is killed each time has its cells trained by themselves."""
    seeds, step = ["seed=range(4)", "checkpoint_seconds=0"], StackedBackend.take_step
    assert sweep(*seeds, "study=alone")[0] == 0

    def die(backend, batch):
        step(backend, batch)
        if backend.runs[0].state.step == 3:
            for number in range(deaths):
                with suppress(FileExistsError):
                    (tmp_path / f"{number}.death").touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(StackedBackend, "take_step", die)
    code, said = sweep(*seeds, "hydra.launcher.processes=2")
    assert code == 0 and "4 runs: 4 finished" in said.out
    assert len(list(tmp_path.glob("*.death"))) == deaths
    assert ("exit code -9" in said.err) == (deaths == 6)
    if deaths == 1:
        assert read_metrics() == read_metrics("alone")


def test_processes_share_the_cells_that_do_not_stack(sweep, tmp_path):
    code, said = sweep("seed=range(3)", "optimizer=muon", "hydra.launcher.processes=2")
    assert code == 0 and "3 runs: 3 finished" in said.out
    runs = [load_run(path) for path in (tmp_path / "outputs" / "s").glob("*-*/")]
    pids = {run.run.status()["pid"] for run in runs}
    assert len(runs) == 3 and len(pids) <= 2 and os.getpid() not in pids


def test_a_group_that_breaks_is_run_cell_by_cell(sweep, monkeypatch):
    from truerisk.sweeps.launcher import stacked_group

    def broken(runs, host):
        raise NotImplementedError("no rule for this layer")

    monkeypatch.setattr(stacked_group, "StackedBackend", broken)
    code, said = sweep("seed=1,2")
    assert code == 0 and "2 runs: 2 finished" in said.out
    (line,) = [line for line in said.err.splitlines() if "NotImplementedError" in line]
    assert "training it with others failed: NotImplementedError: no rule for this layer" in line
    assert "(test_vectorized.py:" in line and "Traceback" not in said.err
    assert "starts anew" not in said.err  # nothing was measured yet


def test_a_group_that_breaks_on_its_way_tells_once_what_is_put_aside(sweep, monkeypatch, tmp_path):
    from truerisk.engine.stacked.backend import StackedBackend

    steps, take_step = iter(range(4)), StackedBackend.take_step  # of an epoch, there are 3

    def broken(backend, batch):
        if next(steps, None) is None:
            raise RuntimeError("no more of this")
        return take_step(backend, batch)

    monkeypatch.setattr(StackedBackend, "take_step", broken)
    code, said = sweep("seed=1,2,3")
    assert code == 0 and "3 runs: 3 finished" in said.out
    kept = "each run starts anew; what it had measured is kept in metrics-before.csv"
    assert f"seed=1 and 2 more have no checkpoint: {kept}\n" in said.err
    assert said.err.count("anew") == 1
    assert len(list((tmp_path / "outputs" / "s").glob("*/metrics-before.csv"))) == 3


def test_a_size_that_is_none_is_refused(sweep):
    code, said = sweep("seed=1,2", "hydra.launcher.size=0")
    assert code == 2 and "hydra.launcher.size is 0" in said.err


def test_what_cannot_begin_is_told_with_its_reason(sweep):
    code, said = sweep("seed=range(3)", "data=mnist1d", "model=cnn", "model.width=2")
    assert code == 2 and "3 runs: 3 refused" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: seed=0, seed=1, seed=2: model=cnn takes images")


def test_groups_travel_to_jobs_of_a_cluster(sweep, tmp_path, monkeypatch):
    """As they do on SLURM, by submitit's processes on this machine."""
    import submitit

    from truerisk.sweeps.launcher import submitit_launcher

    def make_executor(cluster, job):
        executor = submitit.AutoExecutor(str(tmp_path / "jobs"), cluster="local")
        executor.update_parameters(timeout_min=5)
        return executor

    monkeypatch.setattr(submitit_launcher, "make_executor", make_executor)
    code, said = sweep(
        *("seed=range(2)", "optimizer=adam,muon", "optimizer.lr=0.01"),
        "hydra/launcher=vectorized_slurm",
    )
    assert code == 0 and "4 runs: 4 finished" in said.out, said.err
    runs = [load_run(path).run.status() for path in (tmp_path / "outputs" / "s").glob("*-*/")]
    assert sorted(run.get("together", 1) for run in runs) == [1, 1, 2, 2]
    assert len({run["pid"] for run in runs}) == 3 and os.getpid() not in {r["pid"] for r in runs}


@pytest.mark.parametrize("launcher", ["basic", "vectorized"])
def test_what_a_schedule_does_not_reach_is_told_once_a_sweep(sweep, monkeypatch, launcher):
    from truerisk.show import console

    monkeypatch.setattr(console, "_TOLD", set())
    asked = ["scheduler=multistep", "scheduler.milestones=[5000]", "seed=1,2"]
    code, shown = sweep(*asked, f"hydra/launcher={launcher}")
    assert (code, shown.err.count("so nothing drops there")) == (0, 1)


@pytest.mark.parametrize("work", ["train_stack", "lose_stack"])
def test_a_stack_killed_in_its_last_writes_ends_in_the_same_digits(work, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.faults import stacked_ends
    from benchmarks.faults.kills import kill_everywhere

    ends = ("os.rename", "status.json.part", "seed=2")  # after the first has been written down

    def wanted(operation):
        return all(word in operation for word in ends)

    train, judge = getattr(stacked_ends, work), stacked_ends.judge_stack
    tally = kill_everywhere("", train, judge, tmp_path, wanted, most=2)
    assert tally == ("", 2, 0, 0, 0, ())


@pytest.mark.parametrize("kept", ["its checkpoint", "nothing"])
def test_the_last_of_a_stack_goes_on_to_the_same_digits(sweep, read_metrics, tmp_path, kept):
    asked = ["seed=1,2", "regularizer=[dropout]", "checkpoint_seconds=0"]
    assert sweep(*asked)[0] == 0
    whole = read_metrics()
    cut = RunFolder(next((tmp_path / "outputs/s").glob("seed=2-*")))
    summary = cut.summary_file.read_text()
    # as a kill leaves it while the other has ended
    cut.summary_file.unlink()
    if kept == "nothing":
        cut.last.unlink()
    status = json.loads((cut.path / "status.json").read_text())
    (cut.path / "status.json").write_text(json.dumps({**status, "status": "running", "pid": 1}))
    code, shown = sweep(*asked)
    assert (code, "2 finished (1 of them before)" in shown.out) == (0, True)
    assert "by itself" not in shown.err
    assert read_metrics() == whole
    assert cut.summary_file.read_text() == summary
