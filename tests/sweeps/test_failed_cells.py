"""Cells that end before their run has a folder: what is left and told of them, and runs later."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from truerisk.cli import main
from truerisk.result import load_run
from truerisk.sweeps.run_cell import RefusalLog
from truerisk.sweeps.study_folder import name_study

TINY = ["data=iris", "data.batch_size=30", "model.width=4", "trainer.max_epochs=1", "figures=false"]
MODEL = """
import torch


class Mine(torch.nn.Linear):
    def __init__(self, input_shape, output_size, width=1):
        if {broken}:
            raise RuntimeError(f"no model of width {{width}}")
        super().__init__(*input_shape, output_size)
"""
OPTION = "# A model of one's own\n_target_: {name}.Mine\nwidth: 1   # of it\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a model of the user's own that cannot be made under a condition."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = "faulty_part"
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "faulty.yaml").write_text(OPTION.format(name=name))

    def write(broken):
        (tmp_path / f"{name}.py").write_text(MODEL.format(broken=broken))
        sys.modules.pop(name, None)
        sys.dont_write_bytecode = True

    yield write
    sys.modules.pop(name, None)


def sweep(*overrides):
    tiny = [text for text in TINY if not text.startswith("model.")]
    own_model = ["--config-dir", "mine", "model=faulty", "study=s"]
    return main(["train", "-m", *own_model, *tiny, *overrides])


@pytest.mark.parametrize("launcher", ["basic", "pool", "submitit_local"])
def test_wherever_a_cell_fails_its_error_and_lines_are_told_once(own, tmp_path, capfd, launcher):
    own("True")
    assert sweep("seed=1,2", "report=false", f"hydra/launcher={launcher}") == 2
    err = capfd.readouterr().err
    for seed in (1, 2):
        (folder,) = (tmp_path / "outputs" / "s").glob(f"seed={seed}-*")
        assert (
            "faulty_part.py, line 8" in json.loads((folder / "status.json").read_text())["reason"]
        )
    first, other = (1, 2) if "error: seed=1" in err else (2, 1)  # of a pool's, either
    told = "model: faulty_part.Mine: RuntimeError: no model of width 1\n"
    assert f"error: seed={first}, seed={other}: {told}  faulty_part.py, line 8, in __init__" in err
    assert err.count("RuntimeError") == 2  # of the message, and of the line that raises it
    assert err.count("seed=") == 2


def statuses(study):
    files = study.glob("*/status.json")
    return {file.parent.name.rpartition("-")[0]: json.loads(file.read_text()) for file in files}


@pytest.mark.parametrize("launcher", ["basic", "vectorized"])
def test_an_error_in_a_class_of_the_users_leaves_a_folder(own, tmp_path, capsys, launcher):
    own("width == 2")
    axes = ("model.width=1,2", "seed=1,2", f"hydra/launcher={launcher}")
    assert sweep(*axes) == 2
    study = tmp_path / "outputs" / "s"
    told = capsys.readouterr()
    assert "4 runs: 2 finished, 2 refused" in told.out
    # the page that the sweep ends with counts and names them
    assert "2 runs of 1 recipe: 2 finished, and 2 refused beside them" in told.out
    cells, fault = "model.width=2,seed=1, model.width=2,seed=2", "RuntimeError: no model of width 2"
    named = f"{cells}: model: faulty_part.Mine: {fault}"
    assert f"error: {named}" in told.err and told.err.count(fault.partition(": ")[2]) == 1
    assert f"refused: {named}" in (study / "report" / "index.html").read_text()
    records = statuses(study)
    assert len(records) == 4
    record = records["model.width=2,seed=1"]
    assert record["status"] == "refused" and record["begun"] is False
    assert "faulty_part.py" in record["reason"] and "raise RuntimeError" in record["reason"]
    (folder,) = study.glob("model.width=2,seed=1-*")
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["width"] == 2
    assert json.loads((folder / "metadata.json").read_text())["command"]
    # the class repaired: they run in the folders they have; those that had learned with the class
    # as it was are trained again beside themselves
    own("False")
    assert sweep(*axes) == 0
    told = capsys.readouterr()
    assert "4 runs: 4 finished\n" in told.out and "starts anew" not in told.err
    assert len(list(study.glob("model.width=2,*"))) == 2 and len(list(study.glob("*/"))) == 7
    assert "begun" not in statuses(study)["model.width=2,seed=1"]
    assert load_run(folder).status == "finished"
    assert load_run(folder).run.metadata()["data"]["input_shape"] == [4]


def test_a_cell_that_never_began_is_resumed_by_itself(own, tmp_path, capsys):
    own("width == 2")
    assert sweep("model.width=1,2") == 2
    (folder,) = (tmp_path / "outputs" / "s").glob("model.width=2-*")
    own("False")
    assert main(["train", f"resume={folder}"]) == 0
    assert load_run(folder).status == "finished"
    assert "starts anew" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("axis", "bad"),
    [("loss=cross_entropy,mse", "loss=mse"), ("step.accumulate=1,0", "step.accumulate=0")],
)
def test_what_cannot_work_is_recorded_and_named(tmp_path, monkeypatch, capsys, axis, bad):
    """The first is known once the data is read, the second before anything starts."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "-m", *TINY, "study=s", axis, "seed=1,2"]
    assert main(command) == 2
    told = capsys.readouterr()
    assert "4 runs: " in told.out
    assert "2 runs of 1 recipe: 2 finished, and 2 refused beside them" in told.out
    named = f"{bad},seed=1, {bad},seed=2: "
    assert f"error: {named}" in told.err and told.err.count(f"{bad},seed=") == 2
    records = statuses(tmp_path / "outputs" / "s")
    assert [r["status"] for r in records.values()].count("refused") == 2
    assert main(["report", "outputs/s"]) == 0
    told = capsys.readouterr()
    assert "and 2 refused beside them" in told.out and f"refused: {named}" in told.err


def test_a_reason_that_comes_back_after_others_is_counted_without_it(capsys):
    log = RefusalLog()
    log.note("seed=0", "seed=0: no such width")
    log.tell(ended=False)  # a cell between them has finished
    for seed in range(6):
        log.note(f"seed={seed}", "no such width")
        log.tell(ended=False)
    log.tell()
    log.tell()
    assert capsys.readouterr().err.splitlines() == [
        "error: seed=0: no such width",
        "error: seed=1, seed=2, seed=3 and 2 more (5 cells): refused as seed=0 is",
    ]


def test_a_cell_that_cannot_be_composed_is_named_until_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    axes = ["optimizer=adam,momentum", "optimizer.betas=[0.8,0.99]"]
    assert main(["train", "-m", *TINY, "study=s", *axes]) == 2
    assert "1 finished, and 1 refused beside them" in capsys.readouterr().out
    trace = tmp_path / "outputs" / "s" / "optimizer=momentum"
    assert json.loads((trace / "status.json").read_text())["status"] == "refused"
    overrides = json.loads((trace / "metadata.json").read_text())["overrides"]
    assert "optimizer=momentum" in overrides
    assert main(["train", "-m", *TINY, "study=s", "optimizer=adam,momentum"]) == 0
    assert not trace.exists()


def test_a_command_of_which_nothing_can_work_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "study=s", "seed=-1,-2"]) == 2
    assert not (tmp_path / "outputs").exists()


def parsed(overrides):
    """What a study's name is made of."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    own = OverridesParser.create().parse_overrides(overrides)
    choices = {"hydra": {"runtime": {"choices": {}}}}
    swept = [override for override in own if override.is_sweep_override()]
    return OmegaConf.create(choices), swept, [o for o in own if o not in swept]


def plan(capsys, *overrides):
    """The folder that a study would go to, and what is told beside."""
    tiny = [text for text in TINY if not text.startswith("data=")]
    assert main(["plan", *tiny, *overrides]) == 0
    out, err = capsys.readouterr()
    return out.splitlines()[-1].rpartition(": ")[0].partition(":")[0].rpartition("/")[2], err


def test_a_study_is_named_by_its_axes_and_what_its_cells_share(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    both = "seed=1,2", "optimizer=sgd,adam"
    name, _ = plan(capsys, *both, "data=wine")
    assert name.startswith("optimizer+seed,data=wine,data.batch_size=30,model.width=4")
    assert plan(capsys, "data=wine", *reversed(both))[0] == name
    assert plan(capsys, *both, "data=iris")[0] != name
    # what does not change a result does not change the name
    assert plan(capsys, *both, "data=wine", "threads=2", "logger=[]")[0] == name
    # a long one is cut, and still tells studies apart
    notes = [[f"+notes{i}=abcdefgh" for i in range(20)], [f"+notes{i}=abcdefgh" for i in range(21)]]
    cut = {name_study(*parsed(["seed=1,2", *texts])) for texts in notes}
    assert len(cut) == 2 and max(map(len, cut)) < 120


def test_a_study_under_an_older_name_is_told_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "seed+optimizer").mkdir(parents=True)
    name, err = plan(capsys, "optimizer=sgd,adam", "seed=1,2", "data=iris")
    assert "seed+optimizer holds a study of these axes" in err and name in err
    assert "study=seed+optimizer goes on with it" in err
    (tmp_path / "outputs" / name).mkdir()
    assert "holds a study" not in plan(capsys, "optimizer=sgd,adam", "seed=1,2", "data=iris")[1]
