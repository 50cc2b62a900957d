from pathlib import Path

import numpy as np
import pytest

from truerisk.reports.findings import analyze_problem, summarize_findings
from truerisk.reports.learning_problem import build_study
from truerisk.reports.page import build_data
from truerisk.reports.run_records import CollectedRuns


def labels(study):
    return [[r.label for r in p.recipes] for p in study.problems]


@pytest.fixture
def sorted_(synthetic):
    """A study of runs with these configs, each in two seeds."""

    def make(*configs):
        seeded = [{**c, "seed": {**c["seed"], "base": s}} for c in configs for s in (0, 1)]
        runs = [synthetic.run(c["seed"]["base"], {"risk/val": 1.0}, config=c) for c in seeded]
        return build_study(CollectedRuns(runs, []))

    return make


def test_seeds_and_what_only_watches_make_no_recipe(sorted_, synthetic):
    plain = synthetic.config()
    watched = {**plain, "logger": {"wandb": {"project": "x"}}, "diagnostics": {"flow": {}}}
    study = sorted_(plain, {**watched, "threads": 4})
    assert labels(study) == [["sgd"]]
    assert study.repeated == 2 and len(study.problems[0].recipes[0].runs) == 2


def test_a_value_that_came_with_an_option_is_no_difference(sorted_, synthetic):
    study = sorted_(synthetic.config("sgd", 0.1), synthetic.config("adam", 0.001))
    assert labels(study) == [["sgd", "adam"]] and study.numeric_keys == []


def test_numbers_and_options_make_methods(sorted_, synthetic):
    configs = [synthetic.config(o, lr) for o in ("sgd", "adam") for lr in (0.1, 0.01)]
    study = sorted_(*configs)
    problem = study.problems[0]
    assert labels(study) == [["sgd lr=0.1", "sgd lr=0.01", "adam lr=0.1", "adam lr=0.01"]]
    assert {name: len(rs) for name, rs in problem.methods.items()} == {"sgd": 2, "adam": 2}
    assert problem.recipes[0].numbers == {"optimizer.lr": 0.1}


def test_data_and_loss_are_problems_batch_size_is_a_recipe(sorted_, synthetic):
    iris, wine = (synthetic.config(data=d) for d in ("iris", "wine"))
    small = {**iris, "data": {**iris["data"], "batch_size": 10}}
    noisy = {**iris, "data": {**iris["data"], "label_noise": 0.2}}
    clean = {**iris, "data": {**iris["data"], "label_noise": 0.0}}
    assert labels(sorted_(iris, wine)) == [["sgd"], ["sgd"]]
    assert labels(sorted_(iris, small)) == [["batch_size=100", "batch_size=10"]]
    study = sorted_(clean, noisy)
    assert [p.name for p in study.problems] == ["label_noise=0", "label_noise=0.2"]


def test_without_data_the_function_is_the_problem(sorted_, synthetic):
    def config(name, start):
        base = synthetic.config(data="none")
        base["data"] = {"_target_": "truerisk.data.NoData"}
        base["choices"] = {**base["choices"], "model": name}
        return {**base, "model": {"_target_": f"truerisk.model.{name}", "start": start}}

    study = sorted_(config("bowl", 1.0), config("bowl", 2.0), config("saddle", 1.0))
    assert [p.name for p in study.problems] == ["bowl", "saddle"]
    assert labels(study)[0] == ["start=1", "start=2"]


def test_regularizers_that_all_have_are_not_named(sorted_, synthetic):
    plain = synthetic.config()
    decayed = {**plain, "regularizer": {**plain["regularizer"], "l2": {"coefficient": 0.1}}}
    less = {**plain, "regularizer": {**plain["regularizer"], "l2": {"coefficient": 0.01}}}
    assert labels(sorted_(plain, decayed)) == [["plain", "l2"]]
    assert labels(sorted_(plain, decayed, less)) == [
        ["plain", "l2 coefficient=0.1", "l2 coefficient=0.01"]
    ]


def test_a_class_within_a_class(sorted_, synthetic):
    def sam(base, lr):
        node = {"_target_": "truerisk.optimizer.SAM", "base": {"_target_": base, "lr": lr}}
        return {**synthetic.config("sam"), "optimizer": node}

    study = sorted_(sam("torch.optim.SGD", 0.1), sam("torch.optim.AdamW", 0.001))
    assert labels(study) == [["SGD", "AdamW"]]


def test_the_finished_run_of_a_seed_counts_and_the_rest_are_told(synthetic):
    cut = synthetic.run(0, status="interrupted")
    done = synthetic.run(0, {"risk/val": 0.5})
    study = build_study(CollectedRuns([done, cut], []))
    assert study.repeated == 1 and study.status_counts == {"finished": 1}


def test_labels_are_never_alike(sorted_, synthetic):
    study = sorted_(synthetic.config(lr=0.123456), synthetic.config(lr=0.123457))
    assert labels(study) == [["lr=0.1235 (1)", "lr=0.1235 (2)"]]


def test_a_report_looks_at_all_runs_as_often_for_many_as_for_few(synthetic):
    """Else a study of thousands takes hours: what was found by such a look is kept."""

    class Counted(list):
        looks = 0

        def __iter__(self):
            Counted.looks += 1
            return super().__iter__()

    counts = []
    for seeds in (4, 40):
        draws = np.random.default_rng(0).normal(1, 0.1, (2, seeds, 3))
        study = synthetic.study(dict(zip((0.1, 0.2), draws, strict=True)))
        for recipe in study.problems[0].recipes:
            recipe.runs = Counted(recipe.runs)
        Counted.looks = 0
        findings = [analyze_problem(problem) for problem in study.problems]
        for found in findings:
            summarize_findings(found)
        build_data(Path(), study, findings, [([], [])], None)
        counts.append(Counted.looks)
    assert counts[0] == counts[1] < 200
