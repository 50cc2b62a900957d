"""The same command given again runs what is missing, and nothing else."""

from __future__ import annotations

import json

import pytest
import torch
from hydra.types import RunMode

from truerisk.cli import main
from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
from truerisk.engine.step import Step
from truerisk.result import load_run
from truerisk.sweeps.sweep import Sweep


def contents(folder):
    """When and where the files of runs were written."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}


def test_only_what_is_missing_runs(sweep, cells, here, capsys):
    assert sweep("seed=1,2") == 0
    assert "2 runs: 2 finished\n" in capsys.readouterr().out
    before = contents(here / "outputs")
    assert list(cells()) == ["seed=1", "seed=2"]
    assert sweep("seed=1,2") == 0
    assert capsys.readouterr().out == "2 runs: 2 finished (2 of them before)\n"
    assert contents(here / "outputs") == before
    assert sweep("seed=range(1,4)") == 0
    assert "3 runs: 3 finished (2 of them before)\n" in capsys.readouterr().out
    edited = sweep("seed=1", "optimizer.lr=0.1")
    assert edited == 0 and len(cells()) == 4
    assert before.items() <= contents(here / "outputs").items()


def test_it_ends_with_a_table_and_a_page(sweep, here, capsys):
    assert sweep("seed=1,2", "optimizer.lr=0.1,0.01", "report=true") == 0
    out = capsys.readouterr().out
    page = here / "outputs" / "s" / "report" / "index.html"
    assert "4 runs: 4 finished\n4 runs of 2 recipes: 4 finished\n" in out
    assert "validation risk" in out and "lr=0.01" in out and out.endswith(f"\npage  {page}\n")
    assert page.exists()


def test_it_stands_though_no_page_can_be_written(sweep, here, capsys):
    (here / "outputs" / "s").mkdir(parents=True)
    (here / "outputs" / "s" / "report").touch()
    assert sweep("seed=1", "report=true") == 0
    out, err = capsys.readouterr()
    assert out.endswith("1 run: 1 finished\n")
    assert "no report: report: cannot write" in err and "Traceback" not in err


def test_a_cell_is_found_however_it_was_asked_for(sweep, cells, capsys):
    assert sweep("seed=1,2", "optimizer.lr=0.1") == 0
    capsys.readouterr()
    assert sweep("optimizer.lr=0.1", "threads=1", "seed=2", "logger=[csv,tensorboard]") == 0
    assert capsys.readouterr().out == "1 run: 1 finished (1 of them before)\n"
    assert len(cells()) == 2


def test_a_study_without_multirun_has_one_cell(tiny, here, cells, capsys):
    for _ in range(2):
        assert main(["train", *tiny.overrides, "study=s", "seed=5"]) == 0
    assert "1 run: 1 finished (1 of them before)" in capsys.readouterr().out
    (run,) = cells().values()
    assert run.config.seed.base == 5 and run.config.study == "s"


def test_metadata_names_the_overrides_and_status_the_time(sweep, cells, tiny):
    assert sweep("seed=1,2") == 0
    run = cells()["seed=2"].run
    assert run.metadata()["overrides"] == [*tiny.overrides, "seed.base=2"]
    assert 0 < run.status()["seconds"] < 60


def test_a_killed_cell_goes_on_to_the_same_numbers(sweep, cells, tiny, here, killed_after):
    killed_after(5, lambda: sweep("seed=1,2,3"), when=lambda: len(cells()) == 2)
    assert [run.status for run in cells().values()] == ["finished", "running"]
    assert cells()["seed=2"].run.last.exists()
    identity = cells()["seed=2"].run.id
    assert sweep("seed=1,2,3") == 0
    assert {run.status for run in cells().values()} == {"finished"} and len(cells()) == 3
    assert cells()["seed=2"].run.id == identity
    alone = tiny(here / "alone", ["seed=2"])
    assert alone.run.metrics.read_bytes() == cells()["seed=2"].run.metrics.read_bytes()


def test_a_cell_killed_before_it_began_begins(sweep, cells, here):
    assert sweep("seed=1") == 0
    run = cells()[
        "data=iris,data.batch_size=30,model.width=8,trainer.max_epochs=3,"
        "checkpoint_seconds=0,seed=1"
    ].run
    for path in (run.config, run.metrics, run.last, run.best):
        path.unlink()
    run.set_status("running")
    status = json.loads((run.path / "status.json").read_text()) | {"pid": 2**22 - 1}
    (run.path / "status.json").write_text(json.dumps(status))
    assert sweep("seed=1") == 0
    assert [r.status for r in cells().values()] == ["finished"]


def test_failed_cells_are_tried_again_and_diverged_ones_are_not(sweep, cells, monkeypatch, capsys):
    taken = Step.__call__

    def failing(instance, batches):
        if instance.state.step == 4:
            raise RuntimeError("out of luck")
        taken(instance, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", failing)
        assert sweep("optimizer=sgd", "optimizer.lr=0.1,1e30") == 1
    out, err = capsys.readouterr()
    assert "2 runs: 1 failed, 1 diverged" in out and "out of luck" in err
    assert sweep("optimizer=sgd", "optimizer.lr=0.1,1e30") == 0
    assert "2 runs: 1 finished, 1 diverged (1 of them before)" in capsys.readouterr().out
    assert {run.status for run in cells().values()} == {"finished", "diverged"}


def test_what_cannot_work_is_told_first_and_the_others_run(sweep, cells, capsys):
    asked = "optimizer=adam,sgd,gd_backtracking", "+optimizer.momentum=0.5", "data.batch_size=30"
    assert sweep(*asked) == 2
    out, err = capsys.readouterr()
    assert "error: optimizer=adam: optimizer.momentum" in err
    assert "gd_backtracking" in err and "Traceback" not in err
    assert err.index("error: ") < err.index("epoch ")
    # those that cannot work have folders that say so
    ended = {run.config.choices.optimizer: run.status for run in cells().values()}
    assert ended == {"sgd": "finished", "adam": "refused", "gd_backtracking": "refused"}
    assert "3 runs: " in out and "2 refused" in out and "1 finished" in out


def test_an_option_that_does_not_exist_stops_all(sweep, here, capsys):
    assert sweep("optimizer=adam,adm") == 2
    assert "did you mean 'adam'" in capsys.readouterr().err and not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["optimizer=sgd,adam", "seed=range(3)"], "optimizer+seed"),
        (["optimizer=sgd,adam", "seed=range(3)", "study=mine"], "mine"),
        (["experiment=mnist1d_table", "seed=range(3)"], "mnist1d_table"),
        (["seed=3"], "study"),
    ],
)
def test_names_of_studies(overrides, name):
    overrides = expand_short_forms(overrides)
    with hydra_session():
        loader = ConfigLoader()
        shared = loader.load_configuration("train", overrides, RunMode.MULTIRUN)
        assert Sweep(loader, "train", overrides, shared).study.folder.name == name


@pytest.mark.parametrize("name", ["a/b", ".hidden", "..", "'a b'"])
def test_bad_names_of_studies(here, capsys, name):
    assert main(["train", "-m", f"study={name}"]) == 2
    assert "is no name" in capsys.readouterr().err and not list(here.iterdir())


@pytest.mark.parametrize(("given", "name"), [("7", "7"), ("'été,lr=1'", "été,lr=1")])
def test_names_that_are_numbers_or_quoted(sweep, here, given, name):
    assert sweep("seed=1", f"study={given}") == 0
    (run,) = (here / "outputs" / name).glob("*seed=1-*")
    assert load_run(run).config.study == name


def test_a_sweep_over_names_is_refused(sweep, here, capsys):
    assert sweep("seed=1", "study=a,b") == 2
    assert "error: study=a,b: a sweep has one" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_recipes_share_weights_data_and_order_where_seeds_are_the_same(assembled):
    one = assembled("optimizer=sgd", "seed=3")
    other = assembled("optimizer=adamw", "regularizer=[l2,mixup]", "scheduler=cosine", "seed=3")
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    inputs = [next(r.data.train.batches([torch.arange(50)])).x for r in (one, other)]
    assert torch.equal(*inputs)
    orders = [
        [index.tolist() for step in r.plan().epoch(4) for index, _ in step] for r in (one, other)
    ]
    assert orders[0] == orders[1]
    third = assembled("optimizer=sgd", "seed=4")
    assert not torch.equal(next(one.model.parameters()), next(third.model.parameters()))


def test_axes_in_another_order_are_the_same_study(tiny, here, capsys):
    axes = ["optimizer.lr=0.1,0.01", "seed=1,2"]
    assert main(["train", "-m", *tiny.overrides, "report=false", *axes]) == 0
    capsys.readouterr()
    assert main(["train", "-m", *tiny.overrides, "report=false", *reversed(axes)]) == 0
    assert "4 runs: 4 finished (4 of them before)" in capsys.readouterr().out
    (study,) = (here / "outputs").iterdir()
    assert study.name.startswith("optimizer.lr+seed,data=iris,data.batch_size=30")


def test_runs_on_other_data_under_one_name_are_told(sweep, capsys):
    assert sweep("seed=1") == 0 and sweep("seed=2") == 0
    assert "holds runs on" not in capsys.readouterr().err
    assert sweep("data=wine", "seed=1") == 0
    assert "outputs/s holds runs on iris: those on wine join them" in capsys.readouterr().err
    assert sweep("data=wine", "seed=2") == 0  # by now there are some of either
    assert "holds runs on" not in capsys.readouterr().err
