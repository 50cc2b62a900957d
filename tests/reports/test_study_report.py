"""`truerisk report` from real runs to files."""

import csv
import dataclasses
import importlib.util
import math
import warnings

import pandas as pd
import pytest
from rich.console import Console

from truerisk.cli import main
from truerisk.reports import figures, tables
from truerisk.reports.charts import ChartLine, LineChart, draw_problem
from truerisk.reports.findings import analyze_problem, summarize_findings
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import CollectedRuns, read_seeds
from truerisk.reports.study_report import write_report
from truerisk.reports.tables import (
    TextTable,
    render_markdown,
    render_terminal,
    tabulate_comparisons,
    tabulate_main_metrics,
    tabulate_recipes,
)

GRID = [("iris", o, lr, s) for o in ("sgd", "adam") for lr in (0.01, 0.1) for s in range(3)]
GRID += [("wine", o, 0.1, s) for o in ("sgd", "adam") for s in range(2)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Real runs on two data sets, one of which diverges."""
    from unittest import mock

    import truerisk

    top = tmp_path_factory.mktemp("studies") / "tiny"
    shared = ["model.width=8", "trainer.max_epochs=2", "data.batch_size=30"]
    with mock.patch("truerisk.show.figure.draw_result"):
        for data, optimizer, lr, seed in GRID:
            own = [f"data={data}", f"optimizer={optimizer}", f"optimizer.lr={lr}"]
            name = f"{data}-{optimizer}-{lr}-{seed}"
            truerisk.train([*own, f"seed={seed}", *shared], folder=top / name)
        lost = ["data=iris", "optimizer=sgd", "optimizer.lr=1e12", "seed=0", *shared]
        truerisk.train(lost, folder=top / "lost")
    return top


@pytest.fixture(scope="module")
def report(study):
    return write_report([study])


@pytest.fixture
def undrawn_figures(monkeypatch):
    """Reports without image files, which take most of the time."""
    monkeypatch.setattr("truerisk.reports.study_report.save_charts", lambda charts, folder: [])


def test_every_file_is_there(report):
    assert report.folder.name == "report" and report.page.exists()
    names = {p.relative_to(report.folder).as_posix() for p in report.folder.rglob("*.*")}
    kinds = ("svg", "png")
    drawn = ("iris/curves", "iris/swept-lr", "iris/trials", "wine/curves")
    assert {f"figures/{d}.{k}" for d in drawn for k in kinds} <= names
    stems = ("recipes", "comparisons-risk-test", "comparisons-error-test", "methods")
    stems = [f"{data}/{name}" for data in ("iris", "wine") for name in stems]
    assert {f"tables/{t}.{k}" for t in stems for k in ("md", "tex")} <= names
    assert {f"figures/profiles.{k}" for k in kinds} | {"results.csv", "index.html"} <= names
    assert not any(".part" in name for name in names)


def test_the_tables_say_what_the_summaries_say(report, study):
    from truerisk.result import load_run

    values = [load_run(study / f"iris-adam-0.1-{s}").summary["risk/test"].value for s in range(3)]
    mean, error = pd.Series(values).mean(), pd.Series(values).sem()
    text = render_markdown(tabulate_recipes(report.findings[0]))
    cells = next(line for line in text.splitlines() if line.startswith("| adam lr=0.1")).split("|")
    shown, spread = cells[6].split("±")
    assert float(shown) == pytest.approx(mean, abs=10 * error / 100 + 1e-3)
    assert float(spread) == pytest.approx(error, rel=0.06)
    assert "| sgd lr=1e+12 | 0 of 1, 1 diverged |" in text


def test_the_tidy_table_loses_no_run(report, study):
    table = pd.read_csv(report.folder / "results.csv")
    assert table.folder.nunique() == len(list(study.glob("*/status.json"))) == 17
    assert set(table.status) == {"finished", "diverged"}
    one = table.query("metric == 'risk/test' and recipe == 'adam lr=0.1' and problem == 'iris'")
    assert len(one) == 3 and set(one.lr) == {0.1} and set(one.seed) == {0, 1, 2}
    if importlib.util.find_spec("pyarrow"):
        again = pd.read_parquet(report.folder / "results.parquet")
        assert list(again.columns) == list(table.columns) and len(again) == len(table)
        # not by pandas, which before version 3 reads last digits loosely
        with (report.folder / "results.csv").open(newline="") as file:
            written = [float(row["value"]) for row in csv.DictReader(file)]
        assert again.value.tolist() == written


@pytest.mark.usefixtures("undrawn_figures")
def test_without_pyarrow_there_is_no_parquet_and_it_is_said(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    assert main(["report", str(study), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "results.parquet").exists()
    assert "truerisk[parquet]" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn_figures")
def test_the_command_ends_with_a_table_words_and_the_page(study, tmp_path, capsys):
    assert main(["report", str(study), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("17 runs of 7 recipes on 2 problems: 16 finished, 1 diverged")
    assert "adam lr=0.1" in printed and "lowest validation risk" in printed
    assert printed.rstrip().endswith(str(tmp_path / "out" / "index.html"))


def test_a_long_table_counts_its_recipes_and_keeps_the_best_constant(synthetic, capsys):
    names = ("risk/val", "risk/test", "constant/risk/val", "constant/risk/test")
    runs = [
        synthetic.run(seed, dict(zip(names, (lr, lr + 0.1, 77.5, 88.5), strict=True)), lr=lr)
        for lr in range(1, 33)
        for seed in range(2)
    ]
    findings = analyze_problem(build_study(CollectedRuns(runs, [])).problems[0])
    Console(width=80).print(render_terminal(tabulate_main_metrics(findings)))
    *shown, more, constant = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert sum(line.strip().startswith("lr=") for line in shown) == 12
    assert more.strip() == "… 20 more"
    assert constant.split() == ["best", "constant", "77.50", "88.50"]


def test_a_tally_does_not_crush_the_names(capsys):
    """The count of runs folds before a recipe's name does."""
    row = ["adam lr=0.01", "0 of 2, 2 diverged", "1.7029 ± 0.0045", "1.6734 ± 0.0023"]
    sheet = TextTable("iris", ["recipe", "runs", "validation risk", "test risk"], [row])
    Console(width=66).print(render_terminal(sheet))
    assert "\n adam lr=0.01 " in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn_figures")
def test_several_folders_go_to_one_report_here(study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = sorted(str(p) for p in study.glob("iris-sgd-*"))
    assert main(["report", *folders]) == 0
    assert (tmp_path / "report" / "index.html").exists()
    assert capsys.readouterr().out.startswith("6 runs of 2 recipes: 6 finished")


@pytest.mark.usefixtures("undrawn_figures")
def test_a_baseline_makes_the_family_small(study, tmp_path):
    out = tmp_path / "out"
    folders = list(study.glob("iris-*"))
    free = write_report(folders, out).findings[0].comparisons["risk/test"]
    named = write_report(folders, out, baseline="sgd lr=0.1").findings[0].comparisons["risk/test"]
    assert len(free) == 6 and {c.family for c in free} == {6}
    assert len(named) == 3 and {c.family for c in named} == {3}
    assert {c.second for c in named} == {"sgd lr=0.1"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere"], "report: there is no folder nowhere"),
        (["."], "report: there is no run below ."),
        (["STUDY", "--baseline", "sgd lr=0.2"], "--baseline: there is no recipe 'sgd lr=0.2'; did"),
        (["STUDY", "--out", "file/x"], "report: cannot write file/x: Not a directory"),
    ],
)
def test_mistakes_are_one_line(study, tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["report", *(str(study) if a == "STUDY" else a for a in args)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}") and said.count("\n") == 1


def test_a_study_that_has_only_begun(synthetic, tmp_path, capsys):
    for seed in range(2):
        folder = synthetic.write(tmp_path / f"{seed}", synthetic.config(seed=seed), {"risk/val": 1},
                                 status="running")  # fmt: skip
        (folder / "summary.json").unlink()
    assert main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 runs of 1 recipe: 2 running" in printed and "nothing is selected" in printed
    rows = list(csv.DictReader((tmp_path / "report" / "results.csv").open()))
    assert [row["status"] for row in rows] == ["running", "running"]


def test_sentences_of_numbers_that_are_missing(synthetic, tmp_path):
    """One seed, no test set: nothing is claimed that is not known."""
    synthetic.write(tmp_path / "run", synthetic.config(), {"risk/train": 1.0, "risk/val": 1.5})
    said = " ".join(summarize_findings(write_report([tmp_path]).findings[0]))
    assert "1.500 over 1 seed" in said and "There is no test risk" in said
    assert "±" not in said and "nan" not in said and not math.isnan(len(said))


def test_one_seed_each_shows_and_excludes_nothing(synthetic):
    """There is nothing to tell recipes apart by, which is not the same as no difference."""
    study = synthetic.study({0.001: [1.2], 0.1: [2.3], 1.0: [2.4]})
    said = " ".join(summarize_findings(analyze_problem(study.problems[0], None, None)))
    assert "Its test risk is 1.200 (one seed)." in said
    assert "There are too few runs to tell its test risk from those of the others." in said
    assert "not shown to differ" not in said


@pytest.mark.parametrize("name", ["sgd", "plateau p=0.1 coefficient=0.001 accumulate=2 norm=10"])
def test_names_stay_within_the_figure(name, tmp_path):
    lines = [
        ChartLine(f"{name}, {split}", [0, 1, 2], [3, 2, 1], 0) for split in ("train", "validation")
    ]
    figure = figures.draw_lines(LineChart("curves", "Curves", "epoch", "risk", lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "curves.png")
    axes, width = figure.axes[0], figure.bbox.width
    texts = [*axes.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    assert texts and all(t.get_window_extent().x1 <= width for t in texts)
    assert axes.get_position().width > 0.5


@pytest.mark.parametrize(("x", "whole"), [([0, 1, 2, 3], True), ([0, 0.5, 1.5], False)])
def test_epochs_are_counted_in_whole_numbers(x, whole):
    figure = figures.draw_lines(LineChart("c", "C", "epoch", "risk", [ChartLine("sgd", x, x, 0)]))
    ticks = figure.axes[0].get_xticks()
    assert all(float(tick).is_integer() for tick in ticks) == whole


def test_the_best_constant_is_a_line_of_every_chart_and_a_sentence_where_it_wins(synthetic):
    def study(level):
        names = ("risk/train", "risk/val", "risk/test", "constant/risk/val", "constant/risk/test")
        runs = [
            synthetic.run(seed, dict(zip(names, (1.0, 1.0 + lr, 1.0 + lr, level, level + 0.1))),
                          val=[2.0, 1.0 + lr], lr=lr)
            for lr in (0.1, 0.2, 0.4) for seed in range(3)
        ]  # fmt: skip
        return build_study(CollectedRuns(runs, []))

    for level, wins in ((0.5, True), (1.15, False)):
        built = study(level)
        found = analyze_problem(built.problems[0])
        charts, _ = draw_problem(found, built)
        assert [chart.key for chart in charts] == ["curves", "swept-lr", "trials"]
        for chart in charts:
            (line,) = [line for line in chart.lines if line.reference]
            assert line.name == "best constant" and set(line.y) == {level}
            assert (min(line.x), max(line.x)) == (min(chart.lines[0].x), max(chart.lines[0].x))
        said = " ".join(summarize_findings(found))
        sentence = "No recipe does better than the best constant, which looks at no input: its test"
        assert (sentence in said) == wins


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_can_be_read_in_a_terminal(width, capsys):
    names = ["regularizer=[l2,dropout] model=cnn1d lr=0.003 batch_size=256", "sam+adamw cosine"]
    names += ["widths=[100,100,100],optimizer.momentum=0.999,regularizer.l2.coefficient=1e-05"]
    rows = [[name, "8 of 10, 2 diverged", *["1.0491 ± 0.0028"] * 3] for name in names]
    headings = ["recipe", "runs", "validation risk", "test risk", "test error, %"]
    sheet = TextTable("mnist1d", headings, rows)
    Console(width=width).print(render_terminal(sheet, width=width))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, map(str.rstrip, lines))) <= width and "…" not in "".join(lines)
    parts = ["regularizer=[l2,dropout]", "model=cnn1d", "batch_size=256", "sam+adamw cosine"]
    for part in [*parts, "widths=[100,100,100],", "momentum=", "0.999,", "coefficient=", "1e-05"]:
        assert any(part in line for line in lines), part
    left_out = [line for line in lines if line.startswith("no room here")]
    assert bool(left_out) == (width < 120)


def test_folds_are_called_folds_and_few_seeds_are_told(synthetic):
    def study(**data):
        runs = []
        for lr in (0.1, 0.2):
            for k in range(3):
                config = synthetic.config(lr=lr, seed=0 if data else k)
                if data:
                    config["data"] |= {"folds": 3, "fold": k}
                values = {f"risk/{s}": lr + 0.01 * k * k for s in ("train", "val", "test")}
                run = synthetic.run(0, values, config=config)
                runs.append(dataclasses.replace(run, seed=read_seeds(config)))
        return analyze_problem(build_study(CollectedRuns(runs, [])).problems[0])

    folds, seeds = study(folds=3), study()
    told = " ".join(summarize_findings(folds))
    assert "over 3 folds" in told and "paired by fold where folds" in told and "seed" not in told
    assert "over folds" in tabulate_recipes(folds).title
    assert tabulate_comparisons(folds, "risk/test").headings[1] == "folds"
    told = " ".join(summarize_findings(seeds))
    assert "Intervals of 3 seeds are Student's: read 95 % as 86" in told and "fold" not in told
