"""A run's folder: files that appear whole or not at all, and the truth in status.json."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

import truerisk
from truerisk import run as run_module
from truerisk.core.atomic_files import write_atomic
from truerisk.core.errors import ConfigError, UserError
from truerisk.engine.recorder import Recorder
from truerisk.engine.step import Step
from truerisk.result import RunResult, load_run
from truerisk.sweeps.sweep_cell import read_outcome

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


def status(folder):
    return json.loads((folder / "status.json").read_text())


def files(folder):
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(found)


def resume(folder):
    return truerisk.train([f"resume={folder}"])


def test_a_look_at_a_run_reads_each_file_once(tiny, tmp_path, monkeypatch):
    run, read = tiny(tmp_path / "run"), []
    for method in ("read_bytes", "read_text"):
        inner = getattr(Path, method)
        monkeypatch.setattr(Path, method, lambda p, f=inner, **k: read.append(p.name) or f(p, **k))
    outcome = read_outcome(run.folder)
    assert sorted(read) == ["config.yaml", "metadata.json", "status.json", "summary.json"]
    assert (outcome.status, outcome.damaged) == ("finished", False)
    assert outcome.value == run.summary["risk/val"].value
    run.run.metrics.unlink()
    assert read_outcome(run.folder).damaged


def test_a_finished_run_leaves_these_files_and_no_others(tiny, tmp_path, monkeypatch):
    monkeypatch.undo()  # with its figure
    torch.set_num_threads(1)
    result = truerisk.train(tiny.overrides, folder=tmp_path / "run")
    assert files(tmp_path / "run") == [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "figures/risk.png",
        "metadata.json",
        "metrics.csv",
        "status.json",
        "summary.json",
    ]
    told = status(tmp_path / "run")
    assert (told["status"], told["reason"], told["pid"]) == ("finished", "", os.getpid())
    facts = result.run.metadata()
    assert {"id", "command", "versions", "git", "hardware", "seeds", "data"} < facts.keys()
    assert facts["data"]["input_shape"] == [4] and torch.__version__.startswith(
        facts["versions"]["torch"]  # without what it was built for, as in 2.13.0+cpu
    )


def test_figures_can_be_left_out(tiny, tmp_path, monkeypatch):
    monkeypatch.undo()
    torch.set_num_threads(1)
    truerisk.train([*tiny.overrides, "figures=false"], folder=tmp_path / "run")
    assert "figures/risk.png" not in files(tmp_path / "run")


def test_status_while_running(tiny, tmp_path, monkeypatch):
    seen = []
    step = Step.__call__

    def stepped(instance, batches):
        seen.append(status(tmp_path / "run"))
        step(instance, batches)

    monkeypatch.setattr(Step, "__call__", stepped)
    tiny(tmp_path / "run")
    assert {told["status"] for told in seen} == {"running"}
    assert seen[0]["pid"] == os.getpid() and seen[0]["host"] == socket.gethostname()


def test_diverged(tiny, tmp_path):
    overrides = ["optimizer=sgd", "optimizer.lr=1e30", "model.activation=identity"]
    result = tiny(tmp_path / "run", [*overrides, "checkpoint_seconds=1000"])
    assert result.status == "diverged" and result.reason.startswith("step ")
    assert "is not finite" in result.reason
    assert result.summary["risk/test"].epoch == 0
    assert result.history["epoch"].max() == 0
    names = set(result.history["name"])
    assert {"risk/val", "risk/test"} < names
    x = torch.zeros(2, 4)
    assert torch.isfinite(result.model(x)).all()
    again = resume(tmp_path / "run")
    assert (again.status, again.reason) == ("diverged", result.reason)
    assert again.summary == result.summary


@pytest.mark.parametrize("where", ["step", "measure", "draw"])
def test_failed(tiny, tmp_path, monkeypatch, where):
    target = {
        "step": "truerisk.engine.step.Step.__call__",
        "measure": "truerisk.engine.measure.RiskEstimator.final_risks",
        "draw": "truerisk.show.figure.draw_result",
    }

    def broken(*_args):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a bug"):
        patch.setattr(target[where], broken)
        tiny(tmp_path / "run")
    result = load_run(tmp_path / "run")
    assert result.status == "failed"
    assert "Traceback" in result.reason and "RuntimeError: a bug" in result.reason
    tiny(tmp_path / "whole")
    assert resume(tmp_path / "run").summary == load_run(tmp_path / "whole").summary


def full(*_given):
    raise OSError(errno.ENOSPC, "No space left on device", "a.file")


def test_a_full_disk_costs_a_measured_run_its_figures_alone(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("truerisk.show.figure.draw_result", full)
    assert tiny(tmp_path / "run").status == "finished"
    assert "no figures: cannot write a.file: No space left" in capsys.readouterr().err


def test_a_full_disk_while_training_is_told_in_a_line(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("truerisk.engine.step.Step.__call__", full)
        patch.setattr(run_module.RunFolder, "set_status", full)
        patch.setattr(run_module.RunFolder, "_claim", lambda folder: None)
        with pytest.raises(UserError, match=r"cannot write a.file: No space.*resume=") as error:
            tiny(tmp_path / "run")
    assert "\n" not in str(error.value)
    assert resume(tmp_path / "run").status == "finished"


def test_a_finished_run_says_so(tiny, tmp_path, capsys):
    result = tiny(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    again = resume(tmp_path / "run")
    assert f"the run in {tmp_path / 'run'} has finished" in capsys.readouterr().out
    assert again.summary == result.summary
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.fixture
def cut(tiny, tmp_path, monkeypatch):
    """The folder of a run that failed after four steps."""
    step = Step.__call__

    def stepped(instance, batches):
        if instance.state.step == 4:
            raise RuntimeError
        step(instance, batches)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Step, "__call__", stepped)
        tiny(tmp_path / "run")
    return tmp_path / "run"


def claim(folder, pid, began):
    told = {"status": "running", "reason": "", "pid": pid, "began": began}
    told |= {"host": socket.gethostname()}
    (folder / "status.json").write_text(json.dumps(told))


def test_a_run_still_going_is_left_alone(cut):
    other = subprocess.Popen(["sleep", "60"])
    try:
        claim(cut, other.pid, run_module._began(other.pid))
        before = (cut / "status.json").read_bytes()
        with pytest.raises(ConfigError, match=rf"still going \(process {other.pid}\)"):
            resume(cut)
        assert (cut / "status.json").read_bytes() == before
    finally:
        other.kill()
        while run_module._began(other.pid):  # a zombie, as nobody has waited for it yet
            time.sleep(0.01)
    assert resume(cut).status == "finished"
    other.wait()


def test_another_process_with_the_same_number_is_no_run(cut):
    claim(cut, os.getppid(), "12345")
    assert resume(cut).status == "finished"


@pytest.mark.parametrize("harm", [b"", b"PK not a checkpoint", "half", "foreign"])
def test_a_corrupt_checkpoint_is_refused_and_nothing_is_lost(cut, harm):
    last = cut / "checkpoints" / "last.ckpt"
    if harm == "half":
        harm = last.read_bytes()[: last.stat().st_size // 2]
    if harm == "foreign":
        torch.save({"state_dict": {}}, last)
    else:
        last.write_bytes(harm)
    before = {p: p.read_bytes() for p in cut.rglob("*") if p.is_file() and p.name != "status.json"}
    with pytest.raises(ConfigError, match=r"last\.ckpt is not a readable checkpoint") as error:
        resume(cut)
    assert "\n" not in str(error.value) and "delete it" in str(error.value)
    assert "weights_only" not in str(error.value)
    assert {p: p.read_bytes() for p in before} == before
    assert status(cut)["status"] == "failed"
    last.unlink()
    assert resume(cut).status == "finished"


def test_a_run_whose_checkpoint_was_lost_says_that_it_starts_anew(cut, capsys):
    (cut / "checkpoints" / "last.ckpt").unlink()
    before = (cut / "metrics.csv").read_text()
    result = resume(cut)
    assert result.status == "finished"
    assert "no checkpoint: the run starts anew; what it had measured is kept in" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert (cut / "metrics-before.csv").read_text() == before


@pytest.mark.parametrize("text", ["junk\n", "step,epoch,name,value\n1,2\n3,0,risk/val,1\n"])
def test_damaged_metrics_are_put_aside_and_told(cut, capsys, text):
    (cut / "metrics.csv").write_text(text)
    result = resume(cut)
    assert result.status == "finished" and len(result.history)
    assert "metrics.csv is damaged: it is kept as damaged-metrics.csv" in capsys.readouterr().err
    assert (cut / "damaged-metrics.csv").read_text() == text


def test_folders_that_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        resume(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"not the folder of a run \(no config.yaml\)"):
        resume(tmp_path)
    assert files(tmp_path) == []


def test_resuming_takes_no_other_override(cut):
    with pytest.raises(truerisk.core.errors.UserError, match=r"leave out optimizer\.lr=1"):
        truerisk.train([f"resume={cut}", "optimizer.lr=1"])


def test_a_folder_holds_one_run(tiny, tmp_path):
    tiny(tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="already holds a run; continue it with resume="):
        tiny(tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_other_files_of_a_folder_stay(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    tiny(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


OWN = ["config.yaml", "metrics.csv", "summary.json", "status.json", "metadata.json"]
OWN += ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/risk.png"]


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_the_users_that_a_run_would_overwrite_is_named_and_stays(tiny, tmp_path, name):
    path = tmp_path / "proj" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=rf"files that are no run's \({name}\).*hydra.run.dir="):
        tiny(tmp_path / "proj")
    assert files(tmp_path / "proj") == [name] and path.read_text() == '{"mine": 1}'


def test_a_run_is_not_spread_over_the_working_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"no run's \(mine.py\)"):
        tiny(".")
    (tmp_path / "mine.py").unlink()
    assert tiny(".").status == "finished"  # an empty one is as good as any


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_folder_that_cannot_be_written(tiny, tmp_path, path):
    (tmp_path / "file").write_text("a file, where a folder is needed")
    with pytest.raises(ConfigError, match=rf"cannot write .*{path}: Not a directory"):
        tiny(tmp_path / path)


def test_write_atomic(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_atomic(path, "old")
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        write_atomic(path, "new, and longer")
    assert path.read_text() == "old"


def test_files_are_whole_whenever_they_are_read(tiny, fork, tmp_path):
    """Read a run's files over and over while another process writes them."""
    child = fork(lambda: tiny(tmp_path, ["trainer.max_epochs=40"]).status != "finished")
    reads = 0
    while True:
        try:
            torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
            torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
            told = status(tmp_path)["status"]
        except FileNotFoundError:
            continue
        reads += 1
        if told == "finished":
            break
    assert child.wait().code == 0
    assert reads > 5
    assert RunResult(tmp_path).summary["risk/val"].epoch > 0


def test_checkpoints_keep_their_distance(tiny, tmp_path, monkeypatch):
    saved = []
    save = Recorder.save

    def counted(instance, checkpoint, *rest):
        saved.append(checkpoint["global_step"])
        save(instance, checkpoint, *rest)

    monkeypatch.setattr(Recorder, "save", counted)
    tiny(tmp_path / "run", ["checkpoint_seconds=1000"])
    assert saved == [9]
