"""Laws of studies that never ran: what is fitted, said, drawn and written, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tests.reports.test_page import CHROMIUM, browse

from truerisk.core.stop import Stop
from truerisk.reports.charts import draw_problem
from truerisk.reports.figures import draw_lines
from truerisk.reports.findings import analyze_problem, summarize_findings
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import CollectedRuns
from truerisk.reports.study_laws import find_laws
from truerisk.reports.study_report import write_report

SAMPLES = (100, 300, 1000, 3000)
NAMES = ("risk/train", "risk/val", "risk/test")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Enough for a spread, at a fifth of the time."""
    monkeypatch.setattr("truerisk.reports.scaling_law.RESAMPLES", 20)


@pytest.fixture
def make_study(synthetic):
    """A study of runs whose risks are a function of their sizes, times what a seed makes of it."""

    def make(risk, samples=SAMPLES, widths=(8,), epochs=(10,), seeds=3, noise=0.002, **more):
        generator = np.random.default_rng(0)
        runs = []
        for n in samples:
            for width in widths:
                for length in epochs:
                    for seed in range(seeds):
                        config = synthetic.config(seed=seed)
                        config["data"]["num_train"] = n
                        config |= {"model": {"width": width}, "trainer": {"max_epochs": length}}
                        value = risk(n, width**2, length) * np.exp(noise * generator.normal())
                        run = synthetic.run(seed, dict.fromkeys(NAMES, value), config=config)
                        runs.append(dataclasses.replace(run, **{"parameters": width**2, **more}))
        return build_study(CollectedRuns(runs, []))

    return make


def analyze(study):
    return analyze_problem(study.problems[0])


def one_size(n, _parameters, _epochs):
    return 0.2 + 6 / n**0.5


def test_a_law_over_samples_is_said_drawn_and_told_in_numbers(make_study):
    study = make_study(one_size)
    findings = analyze(study)
    (law,) = findings.scaling.laws
    assert law.names == ("num_train",) and law.metric == "risk/test"
    low, high = law.estimate.bound_exponent(0)
    assert low < 0.5 < high and high - low < 0.1
    (said,) = [line for line in summarize_findings(findings) if "caling law" in line]
    assert said.startswith("Scaling law: test risk = E + A/num_train^α, α = 0.498 [0.488, 0.507],")
    assert "irreducible risk E = 0.198 [0.193, 0.204]. Fitted without num_train = 3000, it" in said
    assert said.endswith("says 0.311 [0.305, 0.316] there; measured: 0.3092, 0.4% below.")
    told = law.tell_numbers()
    assert json.dumps(told) and told["left_out"]["at"] == [[3000.0]]
    assert told["exponents"][0] == pytest.approx(0.5, abs=0.03)
    assert told["offset_interval"][0] < 0.2 < told["offset_interval"][1]
    charts, _ = draw_problem(findings, study)
    assert [chart.key for chart in charts] == ["swept-num_train", "law-num_train", "trials"]
    dots, curve, beyond = charts[1].lines
    assert dots.dots and dots.x == list(SAMPLES) and len(dots.low) == 4
    assert (min(curve.x), max(curve.x)) == (100, 3000) and set(SAMPLES) <= set(curve.x)
    # from the largest that it was fitted to, through the one left out, half a decade on
    assert beyond.beyond and min(beyond.x) == 1000 and 3000 in beyond.x
    assert max(beyond.x) == pytest.approx(3000 * 10**0.5)
    at = beyond.x.index(3000)
    assert beyond.low[at] < dots.y[-1] < beyond.high[at]
    figure = draw_lines(charts[1])
    assert figure.axes[0].get_xscale() == "log" and len(figure.axes[0].collections) == 3


def test_a_break_at_the_largest_size_is_told(make_study):
    study = make_study(lambda n, *_: one_size(n, 0, 0) * (1.5 if n == 3000 else 1))
    said = " ".join(summarize_findings(analyze(study)))
    assert "above." in said
    held = analyze(study).scaling.laws[0].held
    assert not held.inside.any() and held.measured[0] / held.predicted[0] == pytest.approx(1.5, 0.1)


def both_sizes(n, parameters, _epochs):
    return 0.1 + 3 / parameters**0.4 + 8 / n**0.6


def test_parameters_and_samples_make_one_law_of_both(make_study):
    study = make_study(both_sizes, widths=(2, 6, 20, 60), noise=0.001)
    findings = analyze(study)
    (law,) = findings.scaling.laws
    assert law.names == ("parameters", "num_train")
    np.testing.assert_allclose(law.estimate.law.exponents, [0.4, 0.6], rtol=0.1)
    assert law.held.inside.sum() >= 6 and len(law.held.at) == 7
    said = " ".join(summarize_findings(findings))
    assert "test risk = E + A/parameters^α + B/num_train^β, α = 0." in said
    assert "at the 7 points left out, " in said
    charts, maps = draw_problem(findings, study)
    (chart,) = [chart for chart in charts if chart.key.startswith("law")]
    names = [line.name for line in chart.lines if line.dots]
    assert names == [f"parameters {n}, measured" for n in (4, 36, 400, 3600)] and len(maps) == 1
    # the law that has not seen the most parameters is beyond what it was fitted to all along
    assert min(chart.lines[-1].x) == 100


def test_of_a_size_with_few_values_the_other_has_a_law_at_its_best(make_study):
    scaling = analyze(make_study(both_sizes, widths=(2, 20))).scaling
    (law,) = scaling.laws
    assert law.names == ("num_train",)
    assert law.measured[0].mean == pytest.approx(both_sizes(100, 400, 0), rel=0.01)
    assert scaling.refusals == ["parameters has 2 values, fewer than 4"]


def test_a_run_that_failed_before_it_began_hides_no_law(make_study):
    study = make_study(lambda _n, p, _: 1 + 3 / p, samples=(9,), widths=(1, 2, 4, 8, 16))
    recipe = study.problems[0].recipes[-1]
    failed = dataclasses.replace(recipe.runs[0], parameters=None, status="failed", summary={})
    recipe.runs[0] = failed
    scaling = analyze(study).scaling
    assert len(scaling.laws[0].sizes) == 5 and scaling.refusals == []
    recipe.runs = [failed]
    assert len(analyze(study).scaling.laws[0].sizes) == 4


def test_what_has_no_law_has_a_word(make_study):
    def refuse(**how):
        findings = analyze(make_study(**how))
        assert findings.scaling.laws == []
        (said,) = [line for line in summarize_findings(findings) if "caling law" in line]
        return said

    assert (
        refuse(risk=one_size, samples=(100, 200, 300, 400))
        == "No scaling law: num_train spans 100 to 400, under a decade."
    )
    assert "does not fall with num_train" in refuse(risk=lambda n, *_: 1 + n / 3000)
    assert "not above 0" in refuse(risk=lambda n, *_: 1 / n - 0.001)
    word = refuse(
        risk=lambda n, p, _: 1 + 1 / p, samples=(9,), widths=(1, 2, 4, 8), parameters=None
    )
    assert word == (
        "No scaling law: runs of earlier versions do not tell their parameters, so there is no law "
        "over them."
    )
    stop = Stop("patience", 1, {})
    word = refuse(
        risk=lambda *sizes: 1 + 1 / sizes[2], samples=(9,), epochs=(1, 3, 9, 30), stop=stop
    )
    assert "4 of 4 recipes ended early, before the max_epochs asked for" in word


def test_a_study_without_sizes_says_nothing_of_them(make_study):
    findings = analyze(make_study(one_size, samples=(9,)))
    assert findings.scaling.laws == findings.scaling.refusals == []


def test_epochs_are_a_size_and_seeds_that_share_nothing_have_no_interval(make_study):
    study = make_study(lambda *sizes: 1 + 2 / sizes[2], samples=(9,), epochs=(1, 3, 10, 30))
    for k, recipe in enumerate(study.problems[0].recipes):
        recipe.runs = [dataclasses.replace(run, seed=(k, i)) for i, run in enumerate(recipe.runs)]
    (law,) = analyze(study).scaling.laws
    assert law.names == ("max_epochs",) and not law.estimate.resampled
    assert law.estimate.law.exponents[0] == pytest.approx(1, abs=0.05)
    said = " ".join(summarize_findings(analyze(study)))
    assert "(no interval without seeds that all sizes share)" in said and "nan" not in said


def test_folds_widen_the_interval(make_study):
    reach = analyze(make_study(one_size, seeds=5)).scaling.laws[0].estimate.reach
    study = make_study(one_size, seeds=5)
    problem = study.problems[0]
    for recipe in problem.recipes:
        for k, run in enumerate(recipe.runs):
            run.config["data"] |= {"folds": 5, "fold": k}
    wider = find_laws(problem, analyze(study).methods).laws[0].estimate.reach
    assert wider == pytest.approx(reach * (1 + 5 / 4) ** 0.5)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_page_draws_bars_and_a_dashed_band(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr("truerisk.reports.study_report.save_charts", lambda *_: None)
    for n in SAMPLES:
        for seed in range(2):
            config = synthetic.config(seed=seed)
            config["data"]["num_train"] = n
            value = one_size(n, 0, 0) + 0.001 * seed
            synthetic.write(tmp_path / f"{n}-{seed}", config, dict.fromkeys(NAMES, value))
    work = """async () => {
      const place = [...document.querySelectorAll("#tuning h3")]
        .find((head) => head.textContent.startsWith("Scaling")).nextElementSibling;
      const paths = [...place.querySelectorAll("svg g path")];
      return { bars: paths.filter((p) => p.getAttribute("d").includes("V")).length,
        dashed: paths.filter((p) => p.getAttribute("stroke-dasharray") === "5 3").length,
        bands: paths.filter((p) => p.getAttribute("opacity") === "0.15").length,
        dots: place.querySelectorAll("svg circle").length,
        laws: DATA.problems[0].laws.map((law) => law.exponents.length) }; }"""
    report = write_report([tmp_path])
    (told,) = json.loads((report.folder / "tables" / "scaling-laws.json").read_text())
    assert told["sizes"] == ["num_train"] and len(told["points"]) == 4
    found = browse(report.page, work)
    assert found["errors"] == [] and found["laws"] == [1]
    assert (found["bars"], found["dashed"], found["bands"], found["dots"]) == (1, 1, 2, 4)


def kinked(n, parameters, epochs, by=1.1):
    return one_size(n, parameters, epochs) * (by if n in (1000, 3000) else 1)


@pytest.mark.parametrize(
    ("risk", "seeds", "said"),
    [
        (one_size, 3, False),
        (kinked, 3, True),
        (kinked, 1, False),
        (lambda *s: kinked(*s, 1.5), 1, True),
    ],
)
def test_a_law_that_misses_its_points_by_more_than_their_intervals_is_told(
    make_study, risk, seeds, said
):
    samples = (100, 200, 400, 1000, 3000, 10_000, 30_000)
    study = make_study(risk, samples=samples, seeds=seeds)
    lines = summarize_findings(analyze(study))
    assert [("where it was fitted" in line) for line in lines if "Scaling law" in line] == [said]
