from __future__ import annotations

from importlib.util import find_spec
from unittest import mock

import pytest

from truerisk.cli import main
from truerisk.config import check
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
    last = capsys.readouterr().out.splitlines()[-1]
    each = sum(took) / 10 / 10
    assert last.startswith(
        f"expected: {format_duration(10 * each)} of work, at {format_duration(each)} a cell"
    )


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
