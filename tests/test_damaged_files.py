"""Files of a run that were lost or broken: told, counted, kept aside, made again if possible."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from truerisk.cli import main
from truerisk.core.atomic_files import spell_numbers
from truerisk.engine.step import Step
from truerisk.reports.run_records import collect_runs
from truerisk.result import load_run
from truerisk.sweeps import outcome_index
from truerisk.sweeps.outcome_index import OutcomeIndex

ROOT = Path(__file__).parents[1]
TINY = ["data=iris", "data.batch_size=50", "model.width=4", "trainer.max_epochs=1"]
SWEEP = ["train", "-m", *TINY, "figures=false", "report=false", "checkpoint_seconds=0", "study=s"]
SWEEP += ["seed=1,2", "threads=1"]
FILES = ["config.yaml", "metadata.json", "metrics.csv", "summary.json", "status.json"]
FILES += ["checkpoints/last.ckpt", "checkpoints/best.ckpt"]
HARMS = ["missing", "empty", "half", "junk", "list", "folder"]

pytestmark = pytest.mark.usefixtures("one_thread")


def run_quietly(command):
    """Run a command in the working folder; its exit code, and what it printed to stderr."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main(command)
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return code, err.getvalue()


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study whose runs have finished, and one whose second run was cut off after two steps."""
    top = tmp_path_factory.mktemp("studies")
    step = Step.__call__

    def cut(instance, batches):
        if instance.state.step == 1:
            raise RuntimeError("cut")
        step(instance, batches)

    with contextlib.chdir(top):
        assert run_quietly(SWEEP)[0] == 0
        shutil.copytree("outputs", "finished")
        shutil.rmtree(next(Path("outputs/s").glob("seed=2-*")))
        with mock.patch.object(Step, "__call__", cut), contextlib.redirect_stderr(io.StringIO()):
            assert main(SWEEP) == 1
        shutil.move("outputs", "cut")
    return top


@pytest.fixture
def damaged(studies, tmp_path, monkeypatch):
    """Harm a file of a study's second run; returns the folder and what the file holds then.

    The study's index has been written before.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outcome_index, "GRAIN", -1.0)
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.faults.single_runs import harm_file

    def harm(kind, name, how):
        shutil.copytree(studies / kind, "outputs")
        index = OutcomeIndex(Path("outputs/s").absolute())
        for place in Path("outputs/s").absolute().glob("seed=*"):
            index.read_outcome(place)
        index.write()
        assert index.file.exists()
        (folder,) = Path("outputs/s").glob("seed=2-*")
        return folder, harm_file(folder / name, how)

    return harm


def ended_as(studies, kind="finished"):
    (folder,) = (studies / kind / "s").glob("seed=2-*")
    return load_run(folder).summary


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", FILES)
def test_of_a_run_that_has_finished(studies, damaged, name, how):
    folder, held = damaged("finished", name, how)
    path = folder / name
    # a report counts the run as unreadable; weights are no business of its
    found = collect_runs(["outputs/s"])
    if name.startswith("checkpoints"):
        assert len(found.runs) == 2 and not found.unreadable
    else:
        assert len(found.runs) == 1 and len(found.unreadable) == 1
        assert path.name in found.unreadable[0] and "\n" not in found.unreadable[0]
    asked = name in ("config.yaml", "metadata.json", "checkpoints/best.ckpt")
    if asked and how in ("missing", "half", "folder"):
        code, err = run_quietly(["evaluate", str(folder)])
        assert code == 2 and path.name in err
    if how not in ("missing", "half", "folder"):
        return
    command = SWEEP
    if how == "half":
        command = ["train", f"resume={folder}"]
    code, err = run_quietly(command)
    if name == "checkpoints/last.ckpt" and how == "missing":
        assert code == 0  # of use to nobody but who wants to train it on
        return
    assert code == 2 and path.name in err
    if name == "config.yaml" and command is not SWEEP:
        assert held == path.read_bytes()  # nothing says what it was
        return
    assert load_run(folder).summary == ended_as(studies)
    if name in ("metrics.csv", "checkpoints/last.ckpt"):
        assert "delete its folder" in err or "cannot be trained on" in err
        return
    # what was broken lies beside, and what could be made again is there
    aside = path.with_name(f"damaged-{path.name}")
    assert aside.exists() == (how != "missing")
    if held is not None:
        assert aside.read_bytes() == held
    assert run_quietly(command)[0] == 0


@pytest.mark.parametrize("kind", ["finished", "cut"])
def test_of_a_run_whose_weights_were_taken_away(studies, tmp_path, monkeypatch, kind):
    """To save room: what was measured stands, and what was cut off starts anew."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(studies / kind, "outputs")
    (folder,) = Path("outputs/s").glob("seed=2-*")
    shutil.rmtree(folder / "checkpoints")
    held = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    code, err = run_quietly(SWEEP)
    assert code == 0 and load_run(folder).summary == ended_as(studies)
    if kind == "cut":
        assert "the run starts anew" in err
        return
    assert not err and held == {path.name: path.read_bytes() for path in folder.glob("*.*")}
    code, err = run_quietly(["evaluate", str(folder)])
    assert code == 2 and "best.ckpt" in err


@pytest.mark.parametrize("how", ["missing", "half", "junk"])
@pytest.mark.parametrize("name", [name for name in FILES if name != "summary.json"])
def test_of_a_run_that_was_cut_off(studies, damaged, name, how):
    folder, held = damaged("cut", name, how)
    path = folder / name
    command = ["train", f"resume={folder}"]
    if how == "half":
        command = SWEEP
    code, err = run_quietly(command)
    if name == "checkpoints/best.ckpt" and how == "missing":
        assert code == 0  # a kill may have come before it was written
        return
    if name == "metrics.csv" and how == "half" and code == 0:
        return  # as a kill may leave it
    assert code == 2 and path.name in err
    refused = name == "config.yaml" and command is not SWEEP
    if refused or (name == "checkpoints/last.ckpt" and how != "missing"):
        assert held is None or path.read_bytes() == held
        return
    run = load_run(folder)
    assert run.status == "finished" and run.summary == ended_as(studies)
    if name == "metrics.csv" and how == "half":  # its whole rows stay, and are gone on with
        assert path.read_bytes().startswith(held[: held.rindex(b"\n") + 1])
    elif held is not None:
        assert path.with_name(f"damaged-{path.name}").read_bytes() == held


def test_numbers_that_json_has_not_are_spelled(tmp_path, monkeypatch):
    """Of a run that diverges, whose files have nan and ∞, every one is JSON to the letter."""
    monkeypatch.chdir(tmp_path)
    big = ["optimizer=sgd", "optimizer.lr=1e30", "model.activation=identity", "report=true"]
    assert main([*[o for o in SWEEP if o != "report=false"], *big]) == 3
    files = list(Path("outputs").rglob("*.json"))
    assert len(files) >= 6
    for file in files:
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_what_is_spelled_is_read_back(tmp_path):
    from truerisk.risk.measured import Measured
    from truerisk.run import RunFolder

    nan, inf = float("nan"), float("inf")
    summary = {"a": Measured(nan, nan, 1), "b": Measured(inf, None, 2), "c": Measured(-inf, 0.5)}
    RunFolder(tmp_path).write_summary(summary)
    text = (tmp_path / "summary.json").read_text()
    raw = json.loads(text, parse_constant=pytest.fail)
    assert raw["a"]["value"] is None and raw["b"]["stderr"] is None
    assert str(RunFolder(tmp_path).summary()) == str(summary)
    # as earlier versions wrote it
    (tmp_path / "summary.json").write_text('{"a": {"value": NaN, "stderr": Infinity, "epoch": 1}}')
    assert str(RunFolder(tmp_path).summary()["a"]) == str(Measured(nan, inf, 1))
    assert spell_numbers((1, nan)) == [1, None]
