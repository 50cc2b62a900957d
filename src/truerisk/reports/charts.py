"""What the charts of a study show, apart from how the page and the image files draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from truerisk.reports.cross_fitting import TunedMethod
from truerisk.reports.findings import ProblemFindings
from truerisk.reports.learning_problem import (
    LearningProblem,
    RecipeRuns,
    StudyResults,
    find_limits,
    title_metric,
)
from truerisk.reports.run_records import MetricCurve, RunRecord
from truerisk.reports.scaling_law import LawEstimate
from truerisk.reports.seed_mean import SeedMean, estimate_columns
from truerisk.reports.study_laws import StudyLaw
from truerisk.reports.tuning_curves import (
    SweptValue,
    average_initial_risk,
    compute_sensitivity,
    expect_best,
    map_risk,
    performance_profile,
    profile_number,
)
from truerisk.show.style import MOST_LINES

FIRST_DRAWN = 5
"""The recipes whose curves are drawn before a reader picks others."""

MOST_POINTS = 200
"""The most points of a curve that is drawn."""

BEST_CONSTANT = "best constant"
"""What the line of the best constant predictor is called."""

BEYOND = 10**0.5
"""How far beyond the largest size a law is drawn, as a ratio."""
TRACED = 40
"""Points of a law that is drawn."""
MOST_JOINED = 25
"""The most values of a number that a line joins: more were drawn at random, each by itself."""


@dataclass(frozen=True)
class ChartLine:
    """Points joined by a line, with a band where there are intervals.

    Args:
        name: what it shows, ending in ``, validation`` or the like.
        x: where its points are.
        y: their heights.
        color: the index of its color.
        low: the lower bounds of the band; empty for none.
        high: the upper bounds.
        n: runs behind each point.
        dashed: whether it is the second of its color.
        steps: whether it is constant up to the next point.
        dots: whether points are drawn that no line joins; intervals are bars then.
        beyond: whether it goes beyond what it was fitted to: dashed, with its band.
        reference: whether it is what the others are held against: thin, grey and dotted.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    n: Sequence[int] = ()
    dashed: bool = False
    steps: bool = False
    dots: bool = False
    beyond: bool = False
    reference: bool = False


@dataclass(frozen=True)
class LineChart:
    """Lines over the same axes.

    Args:
        key: the stem of its files.
        title: above it.
        x: what its horizontal axis is.
        y: what its vertical axis is.
        lines: what it shows.
        log_x: whether the horizontal scale is logarithmic.
        log_y: whether the vertical scale is.
        note: below it.
    """

    key: str
    title: str
    x: str
    y: str
    lines: list[ChartLine]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A number at each pair of two others.

    Args:
        key: the stem of its files.
        title: above it.
        x: what its horizontal axis is.
        y: what its vertical axis is.
        xs: the values across.
        ys: the values up.
        value: the numbers, [y][x]; nan where there is none.
        note: below it.
    """

    key: str
    title: str
    x: str
    y: str
    xs: Sequence[float]
    ys: Sequence[float]
    value: list[list[float]]
    note: str = ""


def draw_problem(
    findings: ProblemFindings, study: StudyResults
) -> tuple[list[LineChart], list[HeatMap]]:
    """Collect all charts and maps of one problem.

    Args:
        findings: of the problem.
        study: which knows the numbers that were swept.

    Returns:
        The charts that have lines, and the maps.
    """
    methods = findings.methods[:MOST_LINES]  # of more, two would have the same color
    charts = [chart_curves(findings.problem, rank_recipes(findings))]
    charts += [
        chart_swept_number(findings, methods, key, study.short_names[key])
        for key in study.numeric_keys
    ]
    charts += chart_laws(findings.scaling.laws, findings.problem.unit)
    charts.append(chart_trials(findings))
    maps = []
    for x, y in combinations(study.numeric_keys, 2):
        maps += map_two_numbers(findings, methods, x, y, study.short_names)
    return [chart for chart in charts if chart.lines], maps


def needs_log_scale(values: Sequence[Sequence[float]], factor: float = 20.0) -> bool:
    """Tell whether values are positive and span more than a factor.

    Args:
        values: of several lines; those that are not finite do not count.
        factor: the ratio of the largest to the smallest.

    Returns:
        Whether a logarithmic scale shows more.
    """
    finite = np.array([v for row in values for v in row if np.isfinite(v)])
    if not len(finite):
        return False
    return bool(finite.min() > 0) and bool(finite.max() > factor * finite.min())


def short_title(metric: str) -> str:
    """Return the first word of a metric's title: train, validation, test or true."""
    return title_metric(metric).partition(" ")[0]


# Curves over epochs


class CurveBand(NamedTuple):
    """The mean over the runs that got so far, its interval (nan for one run), and their number."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def average_curves(runs: Sequence[RunRecord], metric: str) -> CurveBand | None:
    """Average a metric over runs at every epoch.

    Args:
        runs: of one recipe.
        metric: its name.

    Returns:
        At most `MOST_POINTS` epochs; None where no run has a finite value. Runs that ended early
        are not carried on, so the mean goes as far as half of the runs got.
    """
    curves = [run.curves[metric] for run in runs if metric in run.curves]
    if not curves:
        return None
    epoch = np.unique(np.concatenate([curve.epoch for curve in curves]))
    values = np.array([_align_curve(curve, epoch) for curve in curves])
    n = np.isfinite(values).sum(0)
    if not n.max():
        return None
    columns = np.flatnonzero(2 * n >= n.max())
    # evenly spaced over what is left, its first and its last epoch among them
    spaced = np.linspace(0, len(columns) - 1, MOST_POINTS).round().astype(int)
    columns = columns[np.unique(spaced)]
    bounded = estimate_columns(values[:, columns], find_limits(runs, metric))
    return CurveBand(epoch[columns], *bounded, n[columns])


def _align_curve(curve: MetricCurve, epoch: np.ndarray) -> np.ndarray:
    """Spread a curve's finite values over the epochs of all curves, with nan between."""
    values = np.full(len(epoch), np.nan)
    values[np.searchsorted(epoch, curve.epoch)] = curve.value
    return np.where(np.isfinite(values), values, np.nan)


def name_quantity(problem: LearningProblem) -> str:
    """Name what recipes are picked by without its split: ``risk``, or a metric's name."""
    return title_metric(problem.monitor.name).partition(" ")[2]


def rank_recipes(findings: ProblemFindings, most: int = FIRST_DRAWN) -> list[RecipeRuns]:
    """Rank the best recipe of each method on validation first, then the best of the rest.

    Args:
        findings: of one problem.
        most: how many are wanted.

    Returns:
        The first of them.
    """

    monitor = findings.problem.monitor

    def sort_key(recipe: RecipeRuns) -> tuple[float, float]:
        values = recipe.get_values(monitor.name).values()
        if not values:
            return (recipe.diverged_share, float("inf"))
        return (recipe.diverged_share, monitor.orient(sum(values) / len(values)))

    # the best recipes occur among the others too, and count once
    best = [method.selection.recipe for method in findings.methods]
    others = sorted(findings.problem.recipes, key=sort_key)
    return list({id(recipe): recipe for recipe in (*best, *others)}.values())[:most]


def chart_curves(problem: LearningProblem, recipes: Sequence[RecipeRuns]) -> LineChart:
    """Chart train and validation risk over epochs, on the same axes.

    Args:
        problem: the problem.
        recipes: those to show, a color each.

    Returns:
        The chart; without lines where nothing was measured.
    """
    lines = []
    for color, recipe in enumerate(recipes):
        for metric in (problem.monitor.at("train"), problem.monitor.name):
            band = average_curves(recipe.runs, metric)
            if band is not None:
                name = f"{recipe.label}, {short_title(metric)}"
                epoch, mean, low, high, n = (part.tolist() for part in band)
                dashed = metric.endswith("/train")
                lines.append(ChartLine(name, epoch, mean, color, low, high, n, dashed=dashed))
    lines += level_constant(problem, lines)
    log_y = needs_log_scale([line.y for line in lines])
    y = f"{name_quantity(problem)}; – – train, —— validation"
    return LineChart("curves", "Curves", "epoch", y, lines, log_y=log_y)


def level_constant(problem: LearningProblem, lines: Sequence[ChartLine]) -> list[ChartLine]:
    """Draw what the best constant comes to across a chart's range, measured as recipes are picked.

    Args:
        problem: the problem.
        lines: of the chart.

    Returns:
        One line; none where there is nothing to draw it across, or no constant.
    """
    constant, x = problem.constants.get(problem.monitor.name), [x for line in lines for x in line.x]
    if constant is None or not x:
        return []
    ends, level = [min(x), max(x)], [constant.mean] * 2
    return [ChartLine(BEST_CONSTANT, ends, level, 0, reference=True)]


# Swept numbers


def chart_swept_number(
    findings: ProblemFindings, methods: Sequence[TunedMethod], key: str, name: str
) -> LineChart:
    """Chart the validation risk, and that on unseen data, against one swept number.

    Args:
        findings: of one problem.
        methods: those to show, a color each.
        key: the dotted key of the number.
        name: its short name.

    Returns:
        The chart; without lines where no method has several values of the number.
    """
    problem = findings.problem
    lines: list[ChartLine] = []
    notes = []
    for color, method in enumerate(methods):
        recipes = problem.methods[method.name]
        points = profile_number(problem, recipes, key)
        if len(points) > 1:
            dots = is_drawn_at_random(problem, key, points)
            lines += _profile_lines(method.name, points, color, problem.unseen_metric, dots)
            sensitivity = float("nan")
            if not problem.monitor.higher_is_better:  # it is defined of a risk
                sensitivity = compute_sensitivity(points, average_initial_risk(recipes))
            notes.append((method.name, points, sensitivity))
    lines += trace_constant(problem, key, lines)
    title = f"{name_quantity(problem).capitalize()} against {name}"
    if len(_swept_keys(problem)) > 1:
        title += ", at the best of the rest"
    return LineChart(
        key=f"swept-{name.replace('.', '-')}",
        title=title,
        x=name,
        y=f"{name_quantity(problem)}; —— validation, – – {short_title(problem.unseen_metric)}",
        lines=lines,
        note=_profile_note(notes),
        log_x=needs_log_scale([line.x for line in lines], 8),
        log_y=needs_log_scale([line.y for line in lines]),
    )


def trace_constant(
    problem: LearningProblem, key: str, lines: Sequence[ChartLine]
) -> list[ChartLine]:
    """Draw what the best constant comes to at each value of a swept number.

    It is level but where the number is of the data, such as that of the training samples.

    Args:
        problem: the problem.
        key: the dotted key of the number.
        lines: of the chart.
    """
    name = f"constant/{problem.monitor.name}"
    at: dict[float, list[float]] = {}
    for recipe in problem.recipes if lines else ():
        values = [run.get_value(name) for run in recipe.runs]
        kept = [value for value in values if np.isfinite(value)]
        if key in recipe.numbers and kept:
            at.setdefault(recipe.numbers[key], []).extend(kept)
    x = sorted(at)
    y = [float(np.mean(at[value])) for value in x]
    return [ChartLine(BEST_CONSTANT, x, y, 0, reference=True)] if len(x) > 1 else []


def _swept_keys(problem: LearningProblem) -> set[str]:
    return {key for recipe in problem.recipes for key in recipe.numbers}


def is_drawn_at_random(problem: LearningProblem, key: str, points: Sequence[SweptValue]) -> bool:
    """Tell whether nearly every recipe has its own value, while other numbers vary with it.

    A line through such points would show the other numbers' noise as if it were a trend.

    Args:
        problem: the problem.
        key: the dotted key of the number.
        points: one method's profile of it.

    Returns:
        Whether points should be drawn as dots.
    """
    recipes = [recipe for recipe in problem.recipes if key in recipe.numbers]
    values = {recipe.numbers[key] for recipe in recipes}
    unique = len(_swept_keys(problem)) > 1 and len(values) > 0.8 * len(recipes)
    return len(points) > MOST_JOINED or (unique and len(points) > 4)


def _profile_lines(
    method: str, points: list[SweptValue], color: int, unseen: str, dots: bool
) -> list[ChartLine]:
    """Make the dots of a method's validation risk, or a line for each of both risks."""
    at = [point.at for point in points]

    def make_line(title: str, estimates: list[SeedMean], dashed: bool) -> ChartLine:
        mean = [estimate.mean for estimate in estimates]
        low = [estimate.low for estimate in estimates]
        high = [estimate.high for estimate in estimates]
        n = [estimate.n for estimate in estimates]
        name = f"{method}, {title}"
        if dots:
            return ChartLine(name, at, mean, color, [], [], n, dots=True)
        return ChartLine(name, at, mean, color, low, high, n, dashed=dashed)

    lines = [make_line("validation", [point.val for point in points], dashed=False)]
    if not unseen.endswith("/val") and not dots:
        estimates = [point.unseen for point in points]
        lines.append(make_line(short_title(unseen), estimates, dashed=True))
    return lines


def _profile_note(profiles: Sequence[tuple[str, list[SweptValue], float]]) -> str:
    """Note what lines cannot show: how sensitive a method is, and where runs diverged."""
    finite = [f"{name} {value:.3g}" for name, _, value in profiles if np.isfinite(value)]
    lost = [
        f"{name} at {point.at:g} ({point.diverged:.0%} of runs)"
        for name, points, _ in profiles
        for point in points
        if point.diverged
    ]
    sentences = []
    if finite:
        meaning = "Sensitivity, the mean of min(f, f₀) − f* over the values tried (0: none): "
        sentences.append(meaning + ", ".join(finite))
    if lost:
        sentences.append("Diverged: " + ", ".join(lost))
    return " ".join(f"{sentence}." for sentence in sentences)


def chart_laws(laws: Sequence[StudyLaw], unit: str = "seed") -> list[LineChart]:
    """Chart scaling laws: what was measured, the law, and what it says beyond, fitted without that.

    Args:
        laws: of one problem.
        unit: what runs are of, seed or fold.

    Returns:
        A chart for the laws of one size, a color a method; one for each law of two, whose second
        size is across and whose first has a color each.
    """
    groups: dict[tuple[str, ...], list[StudyLaw]] = {}
    for law in laws:
        method = law.method if len(law.names) > 1 else ""
        groups.setdefault((*law.names, method), []).append(law)
    charts = []
    for i, group in enumerate(groups.values()):
        law = group[0]
        lines: list[ChartLine] = []
        if len(law.names) == 1:
            for color, each in enumerate(group):
                lines += _law_lines(each, each.method, color, np.empty(0))
        else:
            for color, first in enumerate(np.unique(law.sizes[:, 0])[:MOST_LINES]):
                name = f"{law.names[0]} {first:g}"
                lines += _law_lines(law, name, color, np.array([first]))
        title = f"Scaling law over {' and '.join(law.names)}"
        if len(law.names) > 1 and len(groups) > 1:
            title += f", {law.method}"
        charts.append(
            LineChart(
                key=f"law-{'-'.join(law.names)}" + (f"-{i}" if i else ""),
                title=title,
                x=law.names[-1],
                y=f"{title_metric(law.metric)}; —— law, – – extrapolated",
                lines=lines,
                log_x=True,
                log_y=needs_log_scale([line.y for line in lines], 5),
                note="Dots were measured. The dashed law was fitted without the largest sizes, and "
                "is held against what was measured there. Bars and bands: 95 % intervals over "
                f"{unit}s.",
            )
        )
    return charts


def _law_lines(law: StudyLaw, name: str, color: int, fixed: np.ndarray) -> list[ChartLine]:
    """Make the dots, the law and the extrapolation over the last size, the others being fixed."""
    rows = (law.sizes[:, :-1] == fixed).all(1)
    at = law.sizes[rows, -1]
    means = [mean for mean, row in zip(law.measured, rows, strict=True) if row]
    dots = ChartLine(
        f"{name}, measured", at.tolist(), [mean.mean for mean in means], color,
        [mean.low for mean in means], [mean.high for mean in means], [mean.n for mean in means],
        dots=True,
    )  # fmt: skip
    lines = [dots, _trace_law(law.estimate, at, f"{name}, law", color, fixed, False)]
    if law.held is not None:
        rest = np.setdiff1d(law.sizes[:, -1], law.held.at[:, -1].max())
        begin = rest.max()
        if len(fixed) and fixed[0] == law.sizes[:, 0].max():
            begin = rest.min()  # all of it is beyond what was fitted
        span = np.unique([begin, *at[at > begin], law.sizes[:, -1].max() * BEYOND])
        title = f"{name}, fitted without the largest"
        lines.append(_trace_law(law.held.estimate, span, title, color, fixed, True))
    return lines


def _trace_law(
    estimate: LawEstimate, at: np.ndarray, name: str, color: int, fixed: np.ndarray, beyond: bool
) -> ChartLine:
    """Trace a law from the smallest to the largest of some sizes, and exactly at each of them."""
    # so many that a chart does not mark each
    x = np.unique([*at, *np.geomspace(at.min(), at.max(), TRACED)])
    points = np.column_stack([np.tile(fixed, (len(x), 1)), x])
    low, high = (bound.tolist() for bound in estimate.band(points))
    if not estimate.resampled:
        low = high = []
    y = estimate.law.predict(points).tolist()
    return ChartLine(name, x.tolist(), y, color, low, high, beyond=beyond)


def map_two_numbers(
    findings: ProblemFindings,
    methods: Sequence[TunedMethod],
    x: str,
    y: str,
    short_names: Mapping[str, str],
) -> list[HeatMap]:
    """Map the validation risk against two swept numbers, a map a method.

    Args:
        findings: of one problem.
        methods: those to show.
        x: the dotted key of one number.
        y: that of the other.
        short_names: short names of the keys.

    Returns:
        The maps of the methods that were tried on at least half of the pairs of values.
    """
    maps = []
    for i, method in enumerate(methods):
        tried = map_risk(findings.problem, findings.problem.methods[method.name], x, y)
        if tried is not None:
            key = f"map-{short_names[x]}-{short_names[y]}".replace(".", "-")
            if i:  # a study of one method keeps plain names
                key += f"-{i}"
            title = f"{title_metric(findings.problem.monitor.name).capitalize()} of {method.name}"
            names = (short_names[x], short_names[y])
            maps.append(HeatMap(key, title, *names, tried.x, tried.y, tried.risk.tolist()))
    return maps


# Budgets and speed


def chart_trials(findings: ProblemFindings) -> LineChart:
    """Chart the expected best of n trials against n, so that methods compare at equal budgets.

    Returns:
        The chart, a color a method; without lines where no method was tried in two settings.
    """
    lines: list[ChartLine] = []
    for color, method in enumerate(findings.methods[:MOST_LINES]):
        lines += _trial_lines(findings.problem, method.name, color)
    most = max((len(line.x) for line in lines), default=0)
    if most == 1:
        lines = []  # a single setting is the best of one at any budget
    lines += level_constant(findings.problem, lines)
    picked_by = title_metric(findings.problem.monitor.name)
    return LineChart(
        key="trials",
        title="Best found against trials spent",
        x="settings tried",
        y=f"expected {name_quantity(findings.problem)} of the best; —— validation, – – "
        + short_title(findings.problem.unseen_metric),
        lines=lines,
        log_x=most > 20,
        log_y=needs_log_scale([line.y for line in lines]),
        note=f"The best of n settings by mean {picked_by}, over all ways to draw n of those tried; "
        "band: the middle half of draws. Where a run diverged, what it had before training counts.",
    )


def _trial_lines(problem: LearningProblem, method: str, color: int) -> list[ChartLine]:
    """Make the lines of one method; none where no setting has both risks."""
    recipes = problem.methods[method]
    initial = average_initial_risk(recipes)
    monitor = problem.monitor
    val = np.array([_average_score(r, monitor.name, initial) for r in recipes])
    unseen = np.array([_average_score(r, problem.unseen_metric, initial) for r in recipes])
    finite = np.isfinite(val) & np.isfinite(unseen)
    if not finite.any():
        return []
    sign = monitor.orient(1.0)
    best = expect_best(sign * val[finite], unseen[finite])
    n, low, high = best.trials.tolist(), (sign * best.low).tolist(), (sign * best.high).tolist()
    if monitor.higher_is_better:
        low, high = high, low
    lines = [ChartLine(f"{method}, validation", n, (sign * best.val).tolist(), color, low, high)]
    if problem.unseen_metric != monitor.name:
        name = f"{method}, {short_title(problem.unseen_metric)}"
        lines.append(ChartLine(name, n, best.unseen.tolist(), color, dashed=True))
    return lines


def _average_score(recipe: RecipeRuns, metric: str, initial: float) -> float:
    """Average a metric over seeds, with the risk before training where a run diverged."""
    scores = recipe.get_scores(metric).values()
    finite = [score if np.isfinite(score) else initial for score in scores]
    return float(np.mean(finite or [np.nan]))


def chart_profiles(findings: Sequence[ProblemFindings]) -> LineChart | None:
    """Chart how often each method is nearly the fastest to a target.

    Args:
        findings: of all problems.

    Returns:
        The chart; None unless two or more methods were timed on two or more problems.
    """
    steps = [f.time_to_target.steps for f in findings if len(f.time_to_target.steps) > 1]
    if len(steps) < 2:
        return None
    profiles = performance_profile(steps)
    # every line goes on to the same place, a little to the right of the last step of any
    end = max(float(ratio[-1]) for ratio, _ in profiles.values()) * 1.2
    lines = [
        ChartLine(name, [*ratio.tolist(), end], [*share.tolist(), share[-1]], i, steps=True)
        for i, (name, (ratio, share)) in enumerate(list(profiles.items())[:MOST_LINES])
    ]
    return LineChart(
        key="profiles",
        title="Performance profiles",
        x="r",
        y="share of problems",
        lines=lines,
        log_x=end > 10,
        note="Share of problems on which a tuned method reaches the target within r times the "
        "steps of the fastest. Steps of different methods need not cost the same.",
    )
