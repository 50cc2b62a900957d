from __future__ import annotations

import random
from importlib.util import find_spec
from unittest import mock

import pytest

from truerisk.cli import main
from truerisk.config import check
from truerisk.sweeps.cluster_plan import end_of_jobs, fit_block_time
from truerisk.sweeps.launcher.submitit_launcher import split_groups
from truerisk.sweeps.sweep_plan import format_duration


def test_a_plan_tells_what_would_happen_and_does_nothing(sweep, tiny, here, capsys):
    assert sweep("seed=1,2") == 0
    capsys.readouterr()
    before = sorted(here.rglob("*"))
    asked = [*tiny.overrides, "study=s", "seed=1,2,3", "optimizer=adam,gd_backtracking"]
    assert main(["plan", "--multirun", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(here.rglob("*")) == before
    assert len(lines) == 8
    assert [line.split()[1] for line in lines[:6:2]] == ["finished", "finished", "to"]
    assert all("cannot work" in line and "data.batch_size=full" in line for line in lines[1:6:2])
    assert "6 cells: 2 finished, 3 cannot work, 1 to run" in lines[6]
    assert lines[7].startswith("expected: ") and "mean of 2 timed" in lines[7]


def test_cells_trained_together_share_the_time(sweep, tiny, capsys, cells):
    """Ten more take what ten took together, not ten times that."""
    together = ["seed=range(10)", "hydra/launcher=vectorized"]
    assert sweep(*together) == 0
    took = [run.run.status()["seconds"] for run in cells().values()]
    capsys.readouterr()
    assert main(["plan", *tiny.overrides, "study=s", "seed=range(20)", *together[1:]]) == 0
    *_, last, copies = capsys.readouterr().out.splitlines()
    assert copies.startswith("group 1: 10 cells hold 10 copies of the data (")
    each = sum(took) / 10 / 10
    assert last.startswith(
        f"expected: {format_duration(10 * each)} of work, at {format_duration(each)} a cell"
    )


def test_a_damaged_and_a_failed_run_are_shown_with_the_reason(sweep, tiny, cells, capsys):
    assert sweep("seed=1,2,3") == 0
    runs = cells()
    runs["seed=1"].run.summary_file.write_text('{"risk/val": ')
    runs["seed=2"].run.set_status("failed", "Traceback\n  line 8\nRuntimeError: no room\n")
    capsys.readouterr()
    assert main(["plan", *tiny.overrides, "study=s", "seed=1,2,3"]) == 0
    damaged, failed, finished, *_ = capsys.readouterr().out.splitlines()
    assert damaged.split()[:2] == ["seed=1", "failed"]
    assert " s  summary.json is not readable JSON" in damaged
    assert failed.split()[:2] == ["seed=2", "failed"]
    assert failed.endswith("  RuntimeError: no room")
    assert finished.split()[:2] == ["seed=3", "finished"] and finished.endswith(" s")


def test_cells_with_long_names_are_told_by_what_tells_them_apart(tiny, here, capsys):
    same = ["regularizer.l2.coefficient: 0.0123456789", "data.label_noise: 0.0123456789"]
    same += ["step.clip.norm: 1.0123456789", "optimizer.weight_decay: 0.0123456789"]
    grid = ", ".join(same)
    points = [f"{{{grid}, optimizer.lr: {lr}}}" for lr in (0.01, 0.02)]
    asked = [*tiny.overrides, "regularizer=l2", "seed=1", "hydra/sweeper=grids"]
    assert main(["plan", *asked, f"hydra.sweeper.grids=[{','.join(points)}]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["optimizer.lr=0.01", "optimizer.lr=0.02"]


def test_one_cell_is_no_cells(tiny, here, capsys):
    assert main(["plan", *tiny.overrides, "seed=1"]) == 0
    assert ": 1 cell: 1 to run" in capsys.readouterr().out


def test_a_plan_of_nothing_timed(tiny, here, capsys):
    assert main(["plan", *tiny.overrides, "seed=1,2"]) == 0
    out = capsys.readouterr().out
    assert (
        "outputs/seed,data=iris," in out and ": 2 cells: 2 to run" in out and "expected" not in out
    )
    assert not list(here.iterdir())


@pytest.mark.skipif(find_spec("ray") is not None, reason="what is told where there is no Ray")
def test_a_launcher_whose_library_is_missing_is_refused_before_anything(tiny, here, capsys):
    for command in (["plan"], ["train", "-m"]):
        assert main([*command, *tiny.overrides, "seed=1,2", "hydra/launcher=ray"]) == 2
        err = capsys.readouterr().err
        assert err == "error: hydra/launcher=ray needs Ray: pip install 'truerisk[ray]'\n"
    assert not list(here.iterdir())


def test_mistakes(here, capsys):
    assert main(["plan", "optimzer=adam,sgd"]) == 2
    assert "did you mean 'optimizer'" in capsys.readouterr().err


def test_cells_that_differ_in_their_seeds_are_examined_once(sweep, tiny, here, capsys):
    """… unless a seed is none; each then has its own reason."""
    with mock.patch("truerisk.config.check.check_config", wraps=check.check_config) as looked:
        given = [*tiny.overrides, "study=s", "seed=range(5)", "optimizer.lr=0.1,0.01"]
        assert main(["plan", "-m", *given]) == 0
    assert looked.call_count == 2
    assert "10 cells: 10 to run" in capsys.readouterr().out
    assert main(["plan", "-m", *tiny.overrides, "seed=1,-1,0.5"]) == 0
    out = capsys.readouterr().out
    assert "seed.base is -1: it should be greater than or equal to 0" in out
    assert "seed.base is 0.5: it should be a valid integer" in out and "1 to run" in out


def simulate(seconds, nodes):
    """A cluster, event by event: whenever a job ends, the next in line begins."""
    queue, running, now = list(seconds), [], 0
    while queue or running:
        while queue and len(running) < nodes:
            running.append(now + queue.pop(0))
        now = min(running)
        running.remove(now)
    return now


def test_the_end_of_jobs_is_that_of_a_simulated_scheduler():
    draw = random.Random(0)
    for _ in range(200):
        jobs = [draw.randint(1, 50) for _ in range(draw.randint(1, 40))]
        nodes = draw.randint(1, 12)
        assert end_of_jobs(jobs, nodes) == simulate(jobs, nodes)
    for jobs, nodes in ((7, 3), (6, 3), (1, 5)):
        assert end_of_jobs([4.0] * jobs, nodes) == -(-jobs // nodes) * 4.0


def test_the_time_of_a_block_is_fitted_to_timed_ones():
    model = fit_block_time([(1, 2.5), (4, 4.0), (4, 4.0), (16, 10.0)])
    assert (model.fixed, model.share) == pytest.approx((2.0, 0.5))
    assert model.covers(16) and not model.covers(17)
    assert fit_block_time([(4, 3.0), (4, 5.0)]).predict(2) == 4.0


def test_a_group_is_split_into_jobs_of_one_size_and_nothing_is_doubled():
    groups = [list(range(10)), [10]]
    assert split_groups(groups, None) == groups
    assert split_groups(groups, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10]]
    assert split_groups(groups, 2, processes=4) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10]]


def test_nodes_that_are_no_number_or_no_cluster_are_refused(tiny, here, capsys):
    asked = ["plan", *tiny.overrides, "seed=1,2"]
    for given, said in (("0", "give a whole number"), ("4", "hydra/launcher=vectorized_slurm")):
        assert main([*asked, "--nodes", given]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --nodes") and said in err and err.count("\n") == 1
    assert main([*asked, "hydra/launcher=vectorized_slurm", "--nodes", "4"]) == 2
    assert "is timed: run it first, by truerisk train" in capsys.readouterr().err
