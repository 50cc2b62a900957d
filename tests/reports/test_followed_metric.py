"""A report on runs that followed a metric of which higher is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from truerisk.reports.findings import analyze_problem, summarize_findings
from truerisk.reports.learning_problem import build_study, title_metric
from truerisk.reports.run_records import CollectedRuns, MetricCurve, RunRecord
from truerisk.reports.tables import tabulate_main_metrics, tabulate_methods
from truerisk.risk.measured import Measured, Monitor

F1 = "metric/f1"
AREAS = {0.1: (0.80, 0.82, 0.81), 0.2: (0.90, 0.92, 0.94), 0.3: (0.70, 0.71, 0.75)}
"""By learning rate, over seeds; the risk is lowest where the metric is."""


def make_run(lr, seed, value, optimizer="sgd", status="finished"):
    config = {
        "choices": {"optimizer": optimizer, "data": "iris"},
        "optimizer": {"_target_": f"torch.optim.{optimizer.upper()}", "lr": lr},
        "data": {"_target_": "truerisk.data.DataModule"},
        "metric": {"f1": {"_target_": "truerisk.metric.TorchMetric"}},
        "monitor": f"{F1}/val",
        "seed": {"base": seed, "init": None, "data": None, "order": None, "noise": None},
    }
    numbers = {
        f"{F1}/val": value,
        f"{F1}/test": value - 0.05,
        "risk/val": value,
        "risk/test": value,
    }
    summary = {name: Measured(number, 0.01, 3) for name, number in numbers.items()}
    epochs = np.arange(4)
    curve = MetricCurve(epochs, 10 * epochs, np.array([0.3, 0.5, value, value - 0.1]))
    record = RunRecord(
        "run", config, status, "", (seed,) * 4, "", "truerisk train", summary, {f"{F1}/val": curve}
    )
    return replace(record, monitor=Monitor(f"{F1}/val", True), higher=frozenset({F1}))


@pytest.fixture(scope="module")
def findings():
    runs = [make_run(lr, seed, v) for lr, row in AREAS.items() for seed, v in enumerate(row)]
    runs += [make_run(0.5, seed, 0.6 + 0.01 * seed, "adam") for seed in range(3)]
    return analyze_problem(build_study(CollectedRuns(runs, [])).problems[0], target=0.75)


def test_the_highest_is_picked_and_said(findings):
    assert "lr=0.2" in findings.selection.recipe.label
    assert findings.selection.val.mean == pytest.approx(0.92)
    assert findings.selection.unseen.mean == pytest.approx(0.87)
    text = " ".join(summarize_findings(findings))
    assert "has the highest validation f1: 0.920 ± 0.012 over 3 seeds" in text
    assert "Its test f1 is 0.870" in text
    assert "Weights and recipe were chosen by the validation f1; risks are reported" in text


def test_a_tie_for_the_first_place_is_said():
    equal = {0.1: (0.5, 0.6, 0.7), 0.2: (0.7, 0.5, 0.6), 0.3: (0.6, 0.7, 0.5), 0.4: (0.1, 0.2, 0.3)}
    runs = [make_run(lr, seed, v) for lr, row in equal.items() for seed, v in enumerate(row)]
    runs += [make_run(0.5, seed, 0.6, status=s) for seed, s in enumerate(["finished", "diverged"])]
    said = summarize_findings(analyze_problem(build_study(CollectedRuns(runs, [])).problems[0]))
    first = "Of 5 recipes, 3 share the highest validation f1: 0.600 ± 0.058 over 3 seeds. lr=0.1, "
    assert said[0].startswith(first)


def test_tables_begin_with_the_highest_and_methods_with_the_best(findings):
    table = tabulate_main_metrics(findings)
    assert table.headings[2:4] == ["validation f1", "test f1"]
    assert ["lr=0.2" in row[0] for row in table.rows] == [True, False, False, False]
    methods = tabulate_methods(findings)
    assert methods.rows[0][0].startswith("sgd") and methods.headings[3] == "validation f1"
    # the picked settings come to 0.75 at epoch 2, and Adam never
    assert findings.time_to_target.steps[methods.rows[0][0]] == 20
    assert not np.isfinite(findings.time_to_target.steps[methods.rows[1][0]])


def test_comparisons_are_by_the_metric_first_and_a_diverged_run_is_the_worst(findings):
    assert list(findings.comparisons) == [f"{F1}/test", "risk/test"]
    first = findings.comparisons[f"{F1}/test"][0]
    assert first.difference.mean > 0 and first.improvement.probability == 1
    lost = make_run(0.9, 0, 0.99, status="diverged")
    kept = [make_run(0.1, seed, v) for seed, v in enumerate(AREAS[0.1])]
    problem = build_study(CollectedRuns([lost, *kept], [])).problems[0]
    selected = analyze_problem(problem).selection
    assert "lr=0.1" in selected.recipe.label
    diverged = next(r for r in problem.recipes if "0.9" in r.label)
    assert list(diverged.get_scores(f"{F1}/val").values()) == [-np.inf]


def test_titles():
    assert title_metric("metric/f1/a class/test") == "test f1 a class"
    assert title_metric("risk/true") == "true risk"
