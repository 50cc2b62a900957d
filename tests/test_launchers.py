"""Sweeps really run, one after another, side by side, and through submitit."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import submitit

from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ProcessLost
from truerisk.result import load_run
from truerisk.sweeps.launcher import submitit_launcher


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cell(study, name):
    """The folder of a cell, whose name ends in a hash."""
    return next(study.glob(f"{name}-*"))


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_two_jobs(tiny, here, capfd, launcher):
    args = [*tiny.overrides, "seed=1,2", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    args += ["report=false"]
    assert main(["train", "-m", *args]) == 0
    assert "2 runs: 2 finished" in capfd.readouterr().out
    runs = [load_run(cell(here / "sweep", f"seed={seed}")) for seed in (1, 2)]
    assert [run.config.seed.base for run in runs] == [1, 2]
    assert {run.status for run in runs} == {"finished"}
    for run in runs:
        alone = tiny(here / f"alone{run.config.seed.base}", [f"seed={run.config.seed.base}"])
        assert run.run.metrics.read_bytes() == alone.run.metrics.read_bytes()
    assert main(["train", "-m", *args]) == 0
    assert capfd.readouterr().out == "2 runs: 2 finished (2 of them before)\n"
    pids = {json.loads((run.folder / "status.json").read_text())["pid"] for run in runs}
    assert (os.getpid() in pids) == (launcher == "basic")


def test_a_single_run_tells_what_only_a_sweep_heeds(tiny, here, capfd):
    words = ["hydra/launcher=pool", "hydra.launcher.slots=2"]
    assert main(["train", *tiny.overrides, *words, "hydra.run.dir=run"]) == 0
    out = capfd.readouterr().out
    assert all(f"{word} has no effect on a single run: -m makes" in out for word in words)


def test_a_bad_cell_does_not_stop_the_others(tiny, here, capfd):
    sweep = ["optimizer.lr=1e30,0.01", "optimizer=sgd", "hydra.sweep.dir=sweep"]
    assert main(["train", "-m", *tiny.overrides, *sweep]) == 0
    assert "2 runs: 1 diverged, 1 finished" in capfd.readouterr().out
    folders = [cell(here / "sweep", f"optimizer.lr={lr}") for lr in ("1e+30", "0.01")]
    assert [load_run(folder).status for folder in folders] == ["diverged", "finished"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_cell_that_was_cut_off_goes_on(tiny, here, killed_after, launcher):
    args = [*tiny.overrides, "seed=1,2", "study=s"]
    killed_after(5, lambda: main(["train", "-m", *args]))
    study = here / "outputs" / "s"
    identity = load_run(cell(study, "seed=1")).run.id
    assert main(["train", "-m", *args, f"hydra/launcher={launcher}"]) == 0
    for seed in (1, 2):
        run, alone = load_run(cell(study, f"seed={seed}")), tiny(here / str(seed), [f"seed={seed}"])
        assert run.status == "finished"
        assert run.run.metrics.read_bytes() == alone.run.metrics.read_bytes()
    assert load_run(cell(study, "seed=1")).run.id == identity


def test_slurm(here, capfd):
    args = ["--cfg=all", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    assert main(["train", *args, "hydra.launcher.gpus_per_node=2"]) == 0
    text = capfd.readouterr().out
    assert "partition: gpu" in text and "gpus_per_node: 2" in text and "SlurmLauncher" in text
    assert compose(["hydra/launcher=submitit_slurm", "model=linear"]).model


def test_what_submitit_cannot_do_is_refused(tiny, here, capsys):
    asked = ["-m", *tiny.overrides, "hydra/launcher=submitit_local", "+hydra.launcher.partitoin=a"]
    assert main(["train", *asked]) == 2
    error = capsys.readouterr().err
    assert "hydra.launcher: submitit says: Unknown argument 'partitoin'" in error


def test_a_thousand_cells_are_one_array(monkeypatch, here):
    """What is more goes into another, as SLURM takes no longer one unless told to."""
    arrays = []

    class Executor(submitit.DebugExecutor):
        def _internal_process_submissions(self, delayed):
            arrays.append(len(delayed))
            return super()._internal_process_submissions(delayed)

    monkeypatch.setattr(submitit_launcher, "make_executor", lambda cluster, job: Executor("."))
    assert submitit_launcher.TASKS == 1000
    monkeypatch.setattr(submitit_launcher, "TASKS", 3)
    works = [SimpleNamespace(cell=i) for i in range(4)]
    launcher = SimpleNamespace(run_works=lambda works: [work.cell for work in works])
    sent = submitit_launcher.send_shares([[work] for work in works], launcher, "slurm", {})
    assert list(sent) == [(i, i) for i in range(4)]
    assert arrays == [3, 1]


def put_commands(folder, monkeypatch, **texts):
    """Put scripts before all commands; srun is there, too, which submitit looks for."""
    for name, text in {"srun": "#!/bin/sh", **texts}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


@pytest.mark.parametrize("launcher", ["submitit_slurm", "vectorized_slurm"])
@pytest.mark.parametrize("cells", ["1", "1,2"])
@pytest.mark.parametrize(
    ("sbatch", "said"),
    [
        (
            "echo 'sbatch: error: no partition a\nsbatch: fatal: failed' >&2; exit 1",
            "sbatch says: no partition a; failed",
        ),
        ("exit 3", "returned non-zero exit status 3"),
        ("echo queued", "Could not make sense of sbatch output"),
    ],
)
def test_an_sbatch_that_fails_gets_one_line(
    tiny, here, capfd, monkeypatch, tmp_path_factory, launcher, cells, sbatch, said
):
    put_commands(tmp_path_factory.mktemp("bin"), monkeypatch, sbatch=f"#!/bin/sh\n{sbatch}\n")
    asked = ["-m", *tiny.overrides, f"hydra/launcher={launcher}", f"seed={cells}", "study=s"]
    assert main(["train", *asked]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: hydra/launcher={launcher}: sbatch says: ") and said in err
    assert err.count("\n") == 1
    assert not list((here / "outputs" / "s").glob("seed=*"))  # nobody has claimed one


def test_an_sbatch_that_is_not_there(tiny, here, capfd, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    put_commands(folder, monkeypatch)
    monkeypatch.setenv("PATH", str(folder))
    assert main(["train", "-m", *tiny.overrides, "hydra/launcher=submitit_slurm", "seed=1"]) == 2
    assert "hydra/launcher=submitit_slurm: sbatch cannot be run: No such" in capfd.readouterr().err


def test_arrays_that_were_sent_are_waited_for(tiny, here, capfd, monkeypatch, tmp_path_factory):
    """Where a cluster takes no more of them: the other cells are told, and can be run later."""
    folder = tmp_path_factory.mktemp("bin")
    sbatch = "#!/bin/sh\n[ -e $0.sent ] && echo 'sbatch: error: too many' >&2 && exit 1\n"
    sbatch += "touch $0.sent; echo Submitted batch job 7\n"
    put_commands(folder, monkeypatch, sbatch=sbatch)
    monkeypatch.setattr(submitit_launcher, "TASKS", 2)

    def wait_for_slurm(task, cells):
        raise ProcessLost("job 7 ended")

    monkeypatch.setattr(submitit_launcher, "wait_for_slurm", wait_for_slurm)
    asked = ["-m", *tiny.overrides, "hydra/launcher=submitit_slurm", "seed=1,2,3", "report=false"]
    assert main(["train", *asked]) == 1
    out, err = capfd.readouterr()
    assert "3 runs: 3 failed" in out and out.count("job 7 ended") == 2 and not err, err
    assert out.count("hydra/launcher=submitit_slurm: sbatch says: too many") == 1, out


@pytest.mark.parametrize(
    ("launcher", "option", "said"),
    [
        ("submitit_local", "timeout_min=x", "must be a whole number of at least 1, not 'x'"),
        ("submitit_slurm", "mem_gb=-1", "must be a number greater than 0, not -1"),
        ("submitit_slurm", "setup=module", "must be a list of commands, not 'module'"),
        ("submitit_slurm", "signal_delay_s=1.5", "must be a whole number of at least 0, not 1.5"),
        ("submitit_slurm", "additional_parameters=3", "must be a mapping such as"),
        ("vectorized_slurm", "job.array_parallelism=0", "must be a whole number of at least 1"),
        ("vectorized_slurm", "job.nodes=x", "must be a whole number of at least 1, not 'x'"),
        ("joblib", "n_jobs=x", "must be a whole number, -1 for all cores, not 'x'"),
        ("joblib", "n_jobs=0", "must be a whole number, -1 for all cores, not 0"),
        ("joblib", "verbose=x", "must be a number at least 0, not 'x'"),
        ("joblib", "timeout=-1", "must be a number greater than 0, not -1"),
        ("joblib", "pre_dispatch=3*jobs", "must be all, a whole number, or such as 2*n_jobs"),
        ("joblib", "batch_size=0", "batch_size must be 'auto' or a positive integer, got: 0"),
        ("joblib", "max_nbytes=x", "joblib says: "),
        ("joblib", "require=sharedmem", "joblib says: "),
        ("joblib", "mmap_mode=z", "must be r, r+, w+, c or null"),
        ("joblib", "prefer=z", "joblib says: "),
        ("joblib", "temp_folder=3", "must be a folder, not 3"),
        ("ray", "cpus=x", "must be a number at least 0, not 'x'"),
        ("ray", "gpus=-1", "must be a number at least 0, not -1"),
        ("ray", "retries=x", "must be a whole number of at least -1, not 'x'"),
        ("ray", "stacked=x", "must be true or false, not 'x'"),
        ("ray", "address=3", "must be an address, auto or null, not 3"),
        ("pool", "slots=x", "must be a whole number of at least 1, not 'x'"),
        ("vectorized", "size=x", "is 'x': give a whole number of at least 1"),
        ("vectorized_slurm", "processes=0", "is 0: give a whole number of at least 1"),
    ],
)
def test_an_option_that_takes_no_such_value_is_named(tiny, here, capfd, launcher, option, said):
    asked = [f"hydra/launcher={launcher}", f"hydra.launcher.{option}", "seed=1,2"]
    assert main(["train", "-m", *tiny.overrides, *asked]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: hydra.launcher.{option.partition('=')[0]}") and said in err, err
    assert err.count("\n") == 1 and not list(here.iterdir())


def test_a_squeue_that_is_not_there_says_nothing_of_a_job(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submitit_launcher.is_queued("1")
