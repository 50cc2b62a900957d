"""What a run prints on its way and at its end."""

from __future__ import annotations

import math

import pytest
from rich.console import Console

import truerisk
from truerisk.evaluate import evaluate
from truerisk.risk.measured import Measured, Monitor
from truerisk.show import risk_table
from truerisk.show.console import (
    INTERVAL,
    OPTIMISM,
    describe_constant,
    describe_weights,
    function_table,
    list_footnotes,
    metric_table,
    print_notes,
)
from truerisk.show.style import format_with_stderr

SUMMARY = {
    "risk/train": Measured(0.123456, 0.0, 37),
    "risk/val": Measured(0.52341, 0.00816, 37),
    "risk/gap": Measured(0.39995, 0.0084, 37),
    "risk/test": Measured(0.5312, 0.0149, 37),
    "error/train": Measured(0.031, 0.0, 37),
    "error/val": Measured(0.1825, math.sqrt(0.1825 * 0.8175 / 3999), 37, 4000),
    "error/test": Measured(0.19, 0.0124, 37),
    "objective": Measured(0.3, None, 37),
}


def shown(table, width=60):
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def cells(line):
    return [cell.strip() for cell in line.strip().split("  ") if cell.strip()]


def test_rows_and_numbers():
    lines = [cells(line) for line in shown(risk_table(SUMMARY))]
    table = [line for line in lines if line and "─" not in line[0]]
    assert table == [
        ["risk ± s.e.", "0-1 error, %", "epoch"],
        ["train", "0.1235 exact", "3.100 exact", "37"],
        ["validation", "0.5234 ± 0.0082", "18.2 [17.1, 19.5]", "37"],
        ["gap", "0.4000 ± 0.0084", "37"],
        # of a run that does not tell how many samples there were
        ["test", "0.531 ± 0.015", "19.0 ± 1.2", "37"],
    ]


def test_fits_a_phone_and_needs_no_colour():
    every = SUMMARY | {
        "risk/true": Measured(0.52341, 0.0000816, 137),
        "error/true": Measured(0.1825, 0.0000613, 137),
        "risk/bayes": Measured(1.5e-7, 1.2e-9, None),
    }
    lines = shown(risk_table(every, title="run"))
    assert max(map(len, lines)) <= 60
    assert not any("…" in line or "\x1b" in line for line in lines)
    assert cells(lines[-2]) == ["Bayes", "(1.500 ± 0.012)e-07"]


def test_metrics_have_a_table_of_their_own():
    summary = {
        "metric/f1/val": Measured(0.91, 0.02, 3, 200),
        "metric/f1/test": Measured(0.9, None, 3),
        "metric/rate/a class/val": Measured(0.5, 0.1, 3, 200),
    }
    table = metric_table(summary)
    assert [cells(line) for line in shown(table) if "0." in line] == [
        ["f1", "0.910 ± 0.020", "0.9000"],
        ["rate a class", "0.50 ± 0.10"],
    ]
    assert metric_table(SUMMARY) is None


def test_the_best_constant_of_a_metric_stands_beside_it():
    summary = {
        "risk/test": Measured(1.2, 0.1, 3, 200),
        "constant/risk/test": Measured(1.0, 0.1, None, 200),
        "metric/f1/test": Measured(0.9, 0.02, 3, 200),
        "metric/f1/a class/test": Measured(0.8, 0.02, 3, 200),
        "metric/spearman/test": Measured(0.7, 0.02, 3, 200),
        "constant/metric/f1/test": Measured(0.6, 0.03, None, 200),
        "constant/metric/f1/a class/test": Measured(0.0, 0.0, None, 200),
    }
    assert [cells(line) for line in shown(metric_table(summary)) if "0." in line] == [
        ["f1", "0.900 ± 0.020", "0.6000"],
        ["f1 a class", "0.800 ± 0.020", "0.000"],
        ["spearman", "0.700 ± 0.020", "–"],
    ]
    shares = {"metric/accuracy/test": Measured(1.0, 0.0, 3, 20)}
    shares |= {f"metric/{n}/test": Measured(1.0, 0.0, 3, 20) for n in ("recall", "roc_auc")}
    assert [cells(line) for line in shown(metric_table(shares)) if "1.0" in line] == [
        ["accuracy", "1.00 [0.84, 1.00]"],
        ["recall", "1.000"],
        ["roc_auc", "1.000"],
    ]
    told = describe_constant(summary)
    assert told.endswith("looks at no input: test risk 1.200, its own 1.000")
    assert describe_constant(summary | {"risk/test": Measured(0.9, 0.1, 3, 200)}) is None


def test_footnotes_say_what_an_interval_is_and_what_is_optimistic():
    assert list_footnotes(SUMMARY) == [INTERVAL, OPTIMISM]
    again = {"risk/gap": Measured(0.4, 0.1, None), "error/val": Measured(0.2, 0.1, None)}
    assert list_footnotes(again) == []


def test_the_title_names_what_was_followed():
    assert "lowest validation risk" in describe_weights(Monitor(), "classification")
    followed = describe_weights(Monitor("metric/f1/val", True), "classification")
    assert followed == "risk at the weights with the highest metric/f1/val"


def test_a_longer_title_stays_on_one_line():
    title = "risk at the weights with the lowest validation risk"
    lines = shown(risk_table({"risk/val": Measured(2.0, 0.25, 7)}, title=title))
    assert lines[0].strip() == title


def test_regression_has_no_error_column():
    lines = shown(risk_table({"risk/val": Measured(2.0, None, None)}))
    assert not any("error" in line for line in lines)
    assert cells(lines[-2]) == ["validation", "2.000"]


def test_a_function_has_a_value_and_a_distance_and_no_splits():
    summary = {f"risk/{name}": Measured(3.744e-21, 0.0, 21) for name in ("train", "val", "gap")}
    lines = shown(function_table(summary | {"distance": Measured(0.25, None, 21)}, "lowest"))
    assert [cells(line) for line in lines if "  21" in line] == [
        ["value", "3.744e-21", "21"],
        ["distance to the nearest known minimum", "0.2500", "21"],
    ]
    assert not any(word in line for line in lines for word in ("train", "validation", "gap"))
    assert max(map(len, lines)) <= 60
    assert len([line for line in shown(function_table(summary)) if "  21" in line]) == 1


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.5, 0.0996, "0.50 ± 0.10"),
        (0.5, 0.0994, "0.500 ± 0.099"),
        (-0.012, 0.0044, "-0.0120 ± 0.0044"),
        (123456.0, 789.0, "123460 ± 790"),
        (3.2e9, 1.4e8, "(3.20 ± 0.14)e+09"),
        (0.0, 0.25, "0.00 ± 0.25"),
        (0.5, 3.0, "0.5 ± 3.0"),
        (math.nan, 0.1, "nan"),
        (math.inf, None, "inf"),
        (0.5, math.nan, "0.5000 ± nan"),
        (12345.678, None, "12346"),
    ],
)
def test_numbers_are_rounded_to_their_standard_error(value, stderr, text):
    assert format_with_stderr(value, stderr) == text


def test_without_noise_the_bayes_error_is_exact():
    summary = {"risk/bayes": Measured(0.0, 0.0), "error/bayes": Measured(0.0, 0.0, size=1000)}
    table = risk_table(summary)
    assert list(table.columns[2].cells) == ["0.000 exact"]
    # few errors of a population that has noise are not
    table = risk_table(summary | {"risk/bayes": Measured(0.1, 0.01)})
    assert "exact" not in next(iter(table.columns[2].cells))


def test_a_sample_without_errors_is_not_exact():
    summary = {
        "risk/train": Measured(0.1, 0.0, 3),
        "risk/test": Measured(0.098, 0.026, 3),
        "error/train": Measured(0.0, 0.0, 3),
        "error/test": Measured(0.0, 0.0, 3),
    }
    lines = [cells(line) for line in shown(risk_table(summary))]
    assert ["train", "0.1000 exact", "0.000 exact", "3"] in lines
    assert ["test", "0.098 ± 0.026", "0.000", "3"] in lines


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


def test_a_run_that_no_epoch_improved_says_so(undrawn, tmp_path, capsys):
    words = ["data=iris", "model=linear", "optimizer=sgd", "optimizer.lr=1e4", "regularizer=[]"]
    truerisk.train([*words, "trainer.max_epochs=3"], folder=tmp_path / "run").report()
    assert (
        "no epoch improved on the initial weights: the numbers are theirs"
        in capsys.readouterr().out
    )


def test_a_note_of_other_numbers_is_printed_once_for_the_cells_of_a_sweep(capsys):
    for count in (127, 128):
        print_notes([f"classes: a {count} (14 %), b 9.5", "seeds are drawn"], once=True)
    print_notes(["classes: a 1 (1 %), b 2"])
    out = capsys.readouterr().out.splitlines()
    assert out == ["classes: a 127 (14 %), b 9.5", "seeds are drawn", "classes: a 1 (1 %), b 2"]
