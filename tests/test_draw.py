"""``truerisk draw``: figures are drawn when someone looks."""

from __future__ import annotations

import pytest

from truerisk.cli import main
from truerisk.result import load_run
from truerisk.show import figure
from truerisk.sweeps.launcher.stacked_group import draw_risks

DRAW = figure.draw_result


@pytest.fixture
def here(tmp_path, monkeypatch, tiny):
    """An empty working folder, in which figures are drawn after all."""
    monkeypatch.setattr(figure, "draw_result", DRAW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_run_of_a_study_which_draws_none(tiny, here, capsys):
    asked = [*tiny.overrides, "study=s", "report=false", "seed=1,2"]
    assert main(["train", "-m", *asked, "diagnostics=[gradient_flow]"]) == 0
    runs = [load_run(folder) for folder in sorted((here / "outputs" / "s").glob("seed=*"))]
    assert not [file for run in runs for file in run.run.figures.iterdir()]
    configs = [run.run.config.read_bytes() for run in runs]
    capsys.readouterr()
    assert main(["draw", "outputs/s"]) == 0
    assert capsys.readouterr().out == "".join(f"figures  {run.run.figures}\n" for run in runs)
    for run in runs:
        names = {file.name for file in run.run.figures.iterdir()}
        assert names == {run.figure.name, "gradient_flow.png"}
    assert [run.run.config.read_bytes() for run in runs] == configs


@pytest.mark.parametrize("launcher", ["basic", "vectorized"])
def test_a_cell_is_drawn_where_somebody_asks_for_its_figure(tiny, here, launcher):
    asked = [*tiny.overrides, "study=s", "report=false", "seed=1,2", f"hydra/launcher={launcher}"]
    assert main(["train", "-m", *asked]) == 0
    runs = [load_run(folder) for folder in (here / "outputs" / "s").glob("seed=*")]
    assert len(runs) == 2 and not any(run.figure_file.exists() for run in runs)
    assert runs[0].figure.read_bytes().startswith(b"\x89PNG")
    assert not runs[1].figure_file.exists()
    assert main(["train", "-m", *asked, "figures=true", "trainer.max_epochs=2"]) == 0
    assert len(list((here / "outputs" / "s").glob("*/figures/risk.png"))) == 3


def test_a_logger_that_shows_figures_looks(tiny, here):
    asked = [*tiny.overrides, "study=s", "report=false", "seed=1,2", "logger=wandb"]
    assert (
        main(["train", "-m", *asked, "logger.wandb.mode=offline", "logger.wandb.media=true"]) == 0
    )
    assert len(list((here / "outputs" / "s").glob("*/figures/risk.png"))) == 2


def test_a_run_that_is_drawn_again(tiny, here, capsys):
    run = tiny(here / "run", ["figures=true"])
    before = run.figure.stat().st_ino
    assert main(["draw", "run"]) == 0
    assert run.figure.stat().st_ino != before


def test_a_run_that_went_on_after_it_was_drawn_is_drawn_anew(tiny, here, capsys):
    run = tiny(here / "run", ["figures=false", "trainer.max_epochs=1"])
    draw_risks(run.run, {"figures": False})
    draw_risks(run.run, {}, seen=False)
    assert not run.figure_file.exists()
    assert main(["draw", "run"]) == 0
    before = run.figure.read_bytes()
    assert main(["train", "resume=run", "trainer.max_epochs=2"]) == 0
    assert f"figure  {run.figure}\n" in capsys.readouterr().out
    assert run.figure.read_bytes() != before
    assert run.figure.stat().st_mtime_ns >= run.run.summary_file.stat().st_mtime_ns
    before = run.figure.stat().st_ino
    draw_risks(run.run, {"figures": False})
    assert run.figure.stat().st_ino != before


def test_a_curve_that_was_cut_off_is_told_of(tiny, here, capsys):
    run = tiny(here / "run")
    rows = run.run.metrics.read_bytes()
    run.run.metrics.write_bytes(rows[: len(rows) // 2].rpartition(b"\n")[0] + b"\n")
    assert main(["draw", "run"]) == 2
    assert "metrics.csv is damaged: the curves of the run are lost" in capsys.readouterr().err


def test_paths_on_a_function(here, capsys):
    asked = ["data=none", "model=beale", "trainer.max_epochs=2", "figures=false", "study=f"]
    for _ in range(2):  # by a sweep that finds all its cells done, too
        assert main(["train", "-m", *asked, "optimizer=sgd,adam", "optimizer.lr=0.01"]) == 0
        (here / "outputs" / "f" / "beale.png").unlink()
    capsys.readouterr()
    assert main(["draw", "outputs/f"]) == 0
    assert "figure  outputs/f/beale.png\n" in capsys.readouterr().out
    assert len(list((here / "outputs" / "f").glob("*/figures/*.png"))) == 2


def test_what_cannot_be_drawn(tiny, here, capsys):
    (here / "empty").mkdir()
    assert main(["draw", "empty"]) == 2
    assert capsys.readouterr().err == "error: draw: there is no run in empty\n"
    assert main(["draw", "emty"]) == 2
    assert "draw: there is no folder emty; did you mean 'empty'?" in capsys.readouterr().err
    tiny(here / "s" / "a")
    tiny(here / "s" / "b")
    (here / "s" / "b" / "metadata.json").write_text("{")
    capsys.readouterr()
    assert main(["draw", "s"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {here / 's' / 'b'}: ") and err.count("\n") == 1
    assert out.count("figures  ") == 1
