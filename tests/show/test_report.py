"""What a run prints on its way and at its end."""

from __future__ import annotations

import pytest

import truerisk
from truerisk.evaluate import evaluate


@pytest.fixture(scope="module")
def newton(tmp_path_factory):
    overrides = ["data=none", "model=rosenbrock", "optimizer=newton", "trainer.max_epochs=25"]
    return truerisk.train(overrides, folder=tmp_path_factory.mktemp("run"))


def words(line):
    return line.split()


def test_a_function_s_run_ends_with_its_value_and_distance(newton, capsys):
    newton.report()
    lines = capsys.readouterr().out.splitlines()
    epoch = newton.summary["risk/val"].epoch
    table = [words(line) for line in lines if line.rstrip().endswith(f" {epoch}")]
    assert table == [
        ["value", "0.000", str(epoch)],
        ["distance", "to", "the", "nearest", "known", "minimum", "0.000", str(epoch)],
    ]
    assert not any(word in line for line in lines for word in ("train ", "validation", "gap"))
    assert lines[-2:] == [f"run     {newton.folder}", f"figure  {newton.folder}/figures/path.png"]


def test_an_evaluation_of_it_prints_the_same_rows(newton, capsys):
    evaluate(newton.folder).report()
    found = [words(line)[0] for line in capsys.readouterr().out.splitlines() if "0.000" in line]
    assert found == ["value", "distance"]


def test_progress_shows_a_function_s_value_and_distance(undrawn, tmp_path, capfd):
    given = ["data=none", "model=paraboloid", "model.start=[3,4]", "optimizer=gd"]
    given += ["optimizer.lr=0.25", "trainer.max_epochs=2", "regularizer=[]"]
    truerisk.train(given, folder=tmp_path)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]
    assert said[0].startswith("epoch 1/2  value 6.25  distance 2.5  0:")
    assert said[1].startswith("epoch 2/2  value 1.562  distance 1.25  0:")


def test_progress_keeps_the_digits_of_double_precision(undrawn, tmp_path, capfd):
    """10⁶⁰ is no number in float32."""
    given = ["data=none", "model=paraboloid", "model.start=[1e30]", "optimizer=gd"]
    truerisk.train([*given, "optimizer.lr=1e-9", "trainer.max_epochs=1"], folder=tmp_path)
    assert "value 2e+60  distance 1.414e+30" in capfd.readouterr().err


def test_a_run_on_data_ends_with_its_risks(tiny, tmp_path, capsys):
    result = tiny(tmp_path)
    result.report()
    out = capsys.readouterr().out
    rows = [words(line)[0] for line in out.splitlines() if "%" not in line and "." in line]
    assert rows[:4] == ["train", "validation", "gap", "test"]
    assert "lowest validation risk" in out and "distance" not in out
