"""The findings on one learning problem, as numbers and in sentences."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from truerisk.core.errors import format_count
from truerisk.core.seeds import Streams
from truerisk.reports.comparison import (
    TOO_FEW,
    RecipeComparison,
    compare_pairs,
    describe_verdict,
)
from truerisk.reports.cross_fitting import (
    RecipeSelection,
    TunedMethod,
    compare_methods,
    select_recipe,
    tune_methods,
)
from truerisk.reports.learning_problem import (
    STATUSES,
    LearningProblem,
    RecipeRuns,
    StudyResults,
    title_metric,
)
from truerisk.reports.run_records import read_resplit
from truerisk.reports.seed_mean import SKEWED, SeedMean
from truerisk.reports.study_laws import LawsFound, StudyLaw, find_laws
from truerisk.reports.tuning_curves import TimeToTarget, count_steps, measure_time_to_target
from truerisk.risk.measured import FOLLOWED_RISK, Monitor
from truerisk.show.style import MOST_LINES, format_fixed, format_with_stderr, leading_power
from truerisk.sweeps.sweep_cell import strip_hash

COMPARED_METRICS = ("risk/test", "risk/true", "error/test", "error/true")
"""The metrics by which recipes are compared; without any of them it is the validation risk."""

SPLIT = Streams._fields.index("data")
"""Which of a run's seeds splits its data."""
MOST_NAMED = 30
"""Runs that a line names."""

NO_OFFSET = 1e-4
"""An irreducible risk below this share of the lowest one is 0: a fit of its logarithm has no 0."""

MISSING = "–"
"""Written where there is no number."""


@dataclass
class ProblemFindings:
    """What was selected on a problem, how its recipes and methods compare, who was fastest.

    Args:
        problem: the problem.
        selection: the recipe with the lowest validation risk; None where no run has one.
        comparisons: of recipes, by metric.
        methods: as tuned on validation, the best first.
        method_comparisons: of all pairs of methods.
        time_to_target: of each method.
        scaling: laws over the sizes that were swept.
    """

    problem: LearningProblem
    selection: RecipeSelection | None
    comparisons: dict[str, list[RecipeComparison]]
    methods: list[TunedMethod]
    method_comparisons: list[RecipeComparison]
    time_to_target: TimeToTarget
    scaling: LawsFound


def analyze_problem(
    problem: LearningProblem, baseline: str | None = None, target: float | None = None
) -> ProblemFindings:
    """Select a recipe, compare recipes, tune and compare methods, and time them.

    Args:
        problem: the problem.
        baseline: label of the recipe that all others are compared with, chosen beforehand.
        target: validation risk for the time to a target.

    Returns:
        The findings.

    Raises:
        ConfigError: there is no recipe called ``baseline``.
    """
    selection = select_recipe(problem)
    ends = ("/test", "/true")
    own = [m for m in problem.metrics if m.startswith("metric/") and m.endswith(ends)]
    # the first is what the page opens with
    own.sort(key=lambda metric: metric != problem.unseen_metric)
    metrics = [m for m in COMPARED_METRICS if m in problem.metrics]
    metrics = [*own, *metrics] if problem.unseen_metric in own else [*metrics, *own]
    # recipes are selected by validation risk: compared by it, the selected one looks too good
    if not metrics and problem.monitor.name in problem.metrics:
        metrics = [problem.monitor.name]
    selected = selection and selection.recipe
    comparisons = {m: compare_pairs(problem, m, selected, baseline) for m in metrics}
    methods = tune_methods(problem)
    pairs = compare_methods(methods, problem.monitor.higher_is_better)
    times = measure_time_to_target(methods, target)
    scaling = find_laws(problem, methods[:MOST_LINES])  # no more are drawn
    return ProblemFindings(problem, selection, comparisons, methods, pairs, times, scaling)


def format_interval(estimate: SeedMean, scale: float = 1.0) -> str:
    """Write a mean and its interval, to two digits of the interval's width.

    Args:
        estimate: a mean over seeds.
        scale: what it is multiplied by.

    Returns:
        The mean alone where there is no interval.

    >>> format_interval(SeedMean(0.5234, 0.01, 0.5034, 0.5434, 5))
    '0.523 [0.503, 0.543]'
    """
    if not estimate.n:
        return MISSING
    numbers = [scale * value for value in (estimate.mean, estimate.low, estimate.high)]
    mean, low, high = numbers
    if not math.isfinite(low) or estimate.high == estimate.low:
        return format_with_stderr(mean, None)
    last = leading_power(scale * (estimate.high - estimate.low)) - 1
    # beyond six decimals a power of ten is easier to read
    if last < -6:
        return f"{mean:.3g} [{low:.3g}, {high:.3g}]"
    first, *bounds = (format_fixed(number, last) for number in numbers)
    return f"{first} [{', '.join(bounds)}]"


def format_mean(estimate: SeedMean, scale: float = 1.0) -> str:
    """Write a mean and its standard error over seeds.

    Args:
        estimate: a mean over seeds.
        scale: what it is multiplied by.

    Returns:
        The mean alone where there is no standard error.

    >>> format_mean(SeedMean(0.5234, 0.0123, 0.49, 0.55, 5)), format_mean(SeedMean(0.5, 0, 0, 0, 1))
    ('0.523 ± 0.012', '0.5000')
    """
    if not estimate.n:
        return MISSING
    stderr = None
    # of equal values it is 0: to call their mean exact would be wrong
    if estimate.stderr > 0:
        stderr = scale * estimate.stderr
    return format_with_stderr(scale * estimate.mean, stderr)


def format_p_value(p: float) -> str:
    """Write a p-value with two digits.

    >>> [format_p_value(p) for p in (0.0312, 1e-9, math.nan, 1.0)]
    ['0.031', '< 0.0001', '–', '1']
    """
    if math.isnan(p):
        return MISSING
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.2g}"


def describe_endings(recipe: RecipeRuns) -> str:
    """Count a recipe's runs and, where not all finished in full, those by their ending."""
    counts = recipe.status_counts
    others = [f"{counts[status]} {status}" for status in STATUSES[1:] if counts[status]]
    if recipe.halved:
        others.append(f"{recipe.halved} halved")
    if not others:
        return str(len(recipe.runs))
    return ", ".join([f"{counts['finished']} of {len(recipe.runs)}", *others])


def describe_study(study: StudyResults) -> str:
    """Count the runs, recipes and problems of a study, and how its runs ended."""
    counts = study.status_counts
    endings = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    runs = format_count(len(study.runs), "run")
    recipes = format_count(sum(len(problem.recipes) for problem in study.problems), "recipe")
    where = ""
    if len(study.problems) > 1:
        where = f" on {len(study.problems)} problems"
    parts = [f"{runs} of {recipes}{where}", endings or "none to count"]
    beside = {"refused": len(study.refused), "unreadable": len(study.unreadable)}
    others = " and ".join(f"{count} {word}" for word, count in beside.items() if count)
    if others:
        parts[-1] += f", and {others} beside them"
    return ": ".join(parts)


def list_failures(study: StudyResults) -> list[str]:
    """Name the runs that failed and the cells that were refused, a line for each reason."""
    ends = [("failed", run.folder, run.reason) for run in study.runs if run.status == "failed"]
    ends += [("refused", folder, reason) for folder, reason in study.refused.items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for status, folder, reason in ends:
        # of a traceback the last line says what went wrong, and a refusal's own lines come after
        said = reason.strip().splitlines() or ["no reason is known"]
        line = said[0 if status == "refused" else -1]
        reasons.setdefault((status, line), []).append(strip_hash(Path(folder)))
    lines = []
    for (status, line), labels in reasons.items():
        shown = ", ".join(labels[:MOST_NAMED])
        if len(labels) > MOST_NAMED:
            shown += f" and {len(labels) - MOST_NAMED} more"
        lines.append(f"{status}: {shown}: {line}")
    return lines


def summarize_findings(findings: ProblemFindings) -> list[str]:
    """Say, sentence by sentence, what one may conclude on a problem."""
    selection = findings.selection
    # a report may be asked for while the first runs are still going
    if selection is None:
        return ["No run has finished with a validation risk yet, so nothing is selected."]
    unseen, unit = findings.problem.unseen_metric, findings.problem.unit
    sentences = [
        describe_selection(selection, findings.problem.monitor, unit),
        describe_unseen_risk(selection, unseen, findings.problem.monitor, unit),
        describe_mismatch(findings.problem),
        describe_kept_epoch(findings.problem),
        describe_constant_wins(findings.problem),
        describe_optimism(selection, findings.problem.monitor, unit),
    ]
    if unseen in findings.comparisons:
        sentences.append(describe_rivals(selection, findings.comparisons[unseen], unseen, unit))
    laws = describe_laws(findings.scaling)
    return [*filter(None, sentences), *laws, *describe_folds(findings), *list_warnings(findings)]


def describe_laws(scaling: LawsFound) -> list[str]:
    """Say each scaling law with its exponents and E, and why there is none of other sizes."""
    said = []
    for law in scaling.laws:
        of = f" of {law.method}" if len(scaling.laws) > 1 else ""
        said.append(f"Scaling law{of}: {describe_law(law)}")
    if scaling.refusals:
        said.append(f"No scaling law: {'; '.join(scaling.refusals)}.")
    return said


def describe_law(law: StudyLaw) -> str:
    """Say a law's numbers, and how far off it was where it had not been fitted."""
    estimate, letters = law.estimate, ("α", "β")[: len(law.names)]
    fitted = estimate.law
    terms = zip(("A", "B"), law.names, letters, strict=False)
    formula = " + ".join(["E", *(f"{top}/{name}^{letter}" for top, name, letter in terms)])

    def write(value: float, bounds: tuple[float, float]) -> str:
        return format_interval(SeedMean(value, math.nan, *bounds, 1))

    exponents = ", ".join(
        f"{letter} = {write(float(value), estimate.bound_exponent(kind))}"
        for kind, (letter, value) in enumerate(zip(letters, fitted.exponents, strict=True))
    )
    offset, (low, high) = fitted.offset, estimate.bound_offset()
    least = NO_OFFSET * min(mean.mean for mean in law.measured)
    if offset < least:
        offset = low = 0.0
    irreducible = write(offset, (low, high)) if max(offset, high) > least else "0"
    text = (
        f"{title_metric(law.metric)} = {formula}, {exponents}, irreducible risk E = {irreducible}"
    )
    if not estimate.resampled:
        text += " (no interval without seeds that all sizes share)"
    if law.misfit:
        text += (
            f"; it is off by up to {law.misfit:.0%} where it was fitted, so no such law may hold"
        )
    return f"{text}.{describe_left_out(law)}"


def describe_left_out(law: StudyLaw) -> str:
    """Say how far off a law was at the largest sizes, fitted without them; empty if too few."""
    held = law.held
    if held is None:
        return ""
    ratios = held.measured / held.predicted - 1
    if len(law.names) == 1:
        says = SeedMean(
            float(held.predicted[0]), math.nan, float(held.low[0]), float(held.high[0]), 1
        )
        word = "above" if ratios[0] > 0 else "below"
        return (
            f" Fitted without {law.names[0]} = {held.at[0, 0]:g}, it says {format_interval(says)} "
            f"there; measured: {held.measured[0]:.4g}, {abs(ratios[0]):.1%} {word}."
        )
    inside = ""
    if held.estimate.resampled:
        inside = f", {int(held.inside.sum())} of which lie in its 95 % intervals"
    return (
        f" Fitted without the largest of each, it is off by up to {abs(ratios).max():.1%} at the "
        f"{format_count(len(ratios), 'point')} left out{inside}."
    )


def describe_folds(findings: ProblemFindings) -> list[str]:
    """Say how errors over folds are estimated, where runs were tested on folds."""
    overlap = findings.problem.overlap
    if not overlap:
        return []
    problem = findings.problem
    metric = problem.unseen_metric
    losses = [recipe.get_losses(metric) for recipe in problem.recipes]
    text = (
        "Folds share training samples: errors of "
        f"means and of differences are s·√(1/n + {overlap:.3g}), n folds (Nadeau & Bengio 2003), "
        "with s that of folds, paired by fold"
    )
    if any(own is not None for own in losses):
        text += (
            ". Of test risks and errors it is that of the losses of all tested samples, paired by "
            "sample (as Bayle et al. 2020 estimate it), unless folds differ by more than their "
            "samples explain"
        )
    tested = [m for m in problem.metrics if m.startswith("metric/") and m.endswith("/test")]
    apart = [m for m in tested if all(r.get_losses(m) is None for r in problem.recipes)]
    if len(tested) > len(apart):
        text += (
            ". Of test metrics it is that of each sample's influence on its fold's value (of a "
            "mean of samples its own score), paired by sample too"
        )
    if apart:
        text += f". Of {', '.join(map(title_metric, apart))} it is that of folds"
    return [f"{text}."]


def describe_kept_epoch(problem: LearningProblem) -> str:
    """Say that what chose the epoch is optimistic at it; nothing where no epoch was chosen."""
    runs = [run for recipe in problem.recipes for run in recipe.runs]
    followed = [run.summary.get(problem.monitor.name) for run in runs]
    if not any(measured is not None and measured.epoch for measured in followed):
        return ""
    title = title_metric(problem.monitor.name)
    other = " and gap are" if "risk/gap" in problem.metrics else " is"
    return f"The {title}{other} optimistic: the same samples chose the epoch of each run."


def describe_constant_wins(problem: LearningProblem) -> str:
    """Say that the best constant beats every recipe on unseen data; nothing where one beats it."""
    metric, monitor = problem.unseen_metric, problem.monitor
    constant = problem.constants.get(metric)
    means = [recipe.estimate(metric) for recipe in problem.recipes]
    scores = [monitor.orient(found.mean) for found in means if found.n]
    if constant is None or not scores or min(scores) < monitor.orient(constant.mean):
        return ""
    return (
        f"No recipe does better than the best constant, which looks at no input: its "
        f"{title_metric(metric)} is {format_mean(constant)}."
    )


def describe_resplits(problem: LearningProblem) -> list[str]:
    """Say how far errors over seeds go, where seeds split one set of samples anew."""
    recipes = [r for r in problem.recipes if r.status_counts["finished"] > 1]
    ratio = max((read_resplit(run) for r in recipes for run in r.runs), default=0.0)
    if not ratio or len({run.seed[SPLIT] for r in recipes for run in r.runs}) < 2:
        return []
    n = max(recipe.status_counts["finished"] for recipe in recipes)
    factor = math.sqrt(1 + n * ratio)
    return [
        "Each seed splits the same samples anew, and errors are over such splits. For new samples "
        f"they are {factor:.3g} times as large (√(1 + {n}·{ratio:.3g}), Nadeau & Bengio 2003); "
        "data.folds=5 'data.fold=range(5)' counts that in."
    ]


def describe_mismatch(problem: LearningProblem) -> str:
    """Say that recipes are picked by one number where others are reported too; else nothing."""
    if problem.monitor == FOLLOWED_RISK:
        others = [m for m in problem.metrics if m.startswith("metric/") and m.endswith("/test")]
        if not others:
            return ""
        names = ", ".join(title_metric(metric) for metric in others[:4])
        more = " and others" if len(others) > 4 else ""
        return (
            f"Weights and recipe were chosen by the validation risk; {names}{more} are reported "
            "at that choice, and another may do better by them."
        )
    return (
        f"Weights and recipe were chosen by the {title_metric(problem.monitor.name)}; risks are "
        "reported at that choice, and another may have lower ones."
    )


def describe_selection(
    selection: RecipeSelection, monitor: Monitor = FOLLOWED_RISK, unit: str = "seed"
) -> str:
    """Say which recipe was selected, and by which number.

    Args:
        selection: the selected recipe.
        monitor: what it was picked by.
        unit: what its runs are of, seed or fold.
    """
    label = selection.recipe.label
    risk = f"{format_mean(selection.val)} over {format_count(selection.val.n, unit)}"
    if selection.among == 1:
        return f"The {title_metric(monitor.name)} of the only recipe, {label}, is {risk}."
    which = "highest" if monitor.higher_is_better else "lowest"
    title = f"{which} {title_metric(monitor.name)}"
    if selection.tied > 1:
        # the best of equals is the first met, which says nothing of it
        return (
            f"Of {selection.among} recipes, {selection.tied} share the {title}: {risk}. "
            f"{label}, the first of them, stands for them here."
        )
    return f"Of {selection.among} recipes, {label} has the {title}: {risk}."


def describe_unseen_risk(
    selection: RecipeSelection, metric: str, monitor: Monitor = FOLLOWED_RISK, unit: str = "seed"
) -> str:
    """Say what the risk on unseen data of the selected recipe is.

    Args:
        selection: the selected recipe.
        metric: the problem's estimate of that risk.
        monitor: what it was picked by.
        unit: what its runs are of, seed or fold.

    Returns:
        One sentence or two.
    """
    if metric == monitor.name or not selection.unseen.n:
        return (
            "There is no test risk, so nothing here estimates its risk on unseen data: the "
            f"{title_metric(monitor.name)} is what it was picked by."
        )
    title = title_metric(metric)
    source = f"mean and 95 % interval over {unit}s" if selection.unseen.n > 1 else f"one {unit}"
    text = f"Its {title} is {format_interval(selection.unseen)} ({source})."
    if selection.difference.n:
        difference = format_interval(selection.difference)
        text += f" {title.capitalize()} minus {title_metric(monitor.name)}: {difference}."
    return text


def describe_optimism(
    selection: RecipeSelection, monitor: Monitor = FOLLOWED_RISK, unit: str = "seed"
) -> str:
    """Say by how much selection flatters the validation risk; empty where nothing was selected.

    Args:
        selection: the selected recipe.
        monitor: what it was picked by.
        unit: what its runs are of, seed or fold.
    """
    if selection.among < 2:
        return ""
    if not math.isfinite(selection.optimism):
        return f"With fewer than two {unit}s the optimism of selection cannot be estimated."
    # exactly 0 only where every seed left out leads to the same pick
    if selection.optimism == 0:
        return (
            f"Optimism of selection: none shown, as the pick is the same whichever {unit} is left "
            "out."
        )
    return (
        f"Optimism of selection: picked on all {unit}s but one and measured on that one, the "
        f"{title_metric(monitor.name)} is {selection.optimism:+.2g} against the number above, and "
        f"that on unseen data {format_mean(selection.cross_fitted.estimate_mean())}."
    )


def describe_rivals(
    selection: RecipeSelection,
    comparisons: list[RecipeComparison],
    metric: str,
    unit: str = "seed",
) -> str:
    """Say how the selected recipe compares with the others.

    Args:
        selection: the selected recipe.
        comparisons: by ``metric``.
        metric: the problem's estimate of the risk on unseen data.
        unit: what runs are of, seed or fold.

    Returns:
        A sentence; empty where the recipe is in no comparison.
    """
    title = title_metric(metric)
    rivals = [c for c in comparisons if c.first == selection.recipe.label]
    if not rivals:
        return ""
    verdicts = Counter(describe_verdict(c) for c in rivals)
    # popped, so that what remains are all the ways of not being shown to differ
    too_few, lower, higher = (verdicts.pop(words, 0) for words in (TOO_FEW, "lower", "higher"))
    if too_few == len(rivals):
        others = "that of the other" if too_few == 1 else "those of the others"
        return f"There are too few runs to tell its {title} from {others}."
    counts = {
        "lower than": lower,
        "higher than": higher,
        "not shown to differ from": sum(verdicts.values()),
        "on too few runs to be told from": too_few,
    }
    if len(rivals) == 1:
        parts = [f"{how} that of the other" for how, count in counts.items() if count]
        of_all = adjusted = ""
    else:
        parts = [f"{how} that of {count}" for how, count in counts.items() if count]
        of_all = f" of the {len(rivals)} others"
        adjusted = f", adjusted for {format_count(rivals[0].family, 'comparison')}"
    return (
        f"Its {title} is {', '.join(parts)}{of_all} "
        f"(paired by {unit} where {unit}s are shared{adjusted})."
    )


def list_warnings(findings: ProblemFindings) -> list[str]:
    """List the caveats of a problem's numbers: lost runs, shortened runs, single seeds."""
    recipes = findings.problem.recipes
    warnings = []
    lost = [r for r in recipes if r.status_counts["diverged"] or r.status_counts["failed"]]
    if lost:
        warnings.append(
            f"Runs of {format_count(len(lost), 'recipe')} diverged or failed: means, over those "
            "that finished, flatter these recipes; selection counts the others as lost."
        )
    halved = sum(recipe.halved for recipe in recipes)
    if halved:
        warnings.append(
            f"{format_count(halved, 'run')} ended early by successive halving: the risks there are "
            "those of shorter training, and count as they are."
        )
    target, runs = findings.time_to_target.target, [run for r in recipes for run in r.runs]
    if math.isfinite(target) and all(math.isinf(count_steps(run, target)) for run in runs):
        title = title_metric(findings.problem.monitor.name)
        warnings.append(f"No run reached the target, a {title} of {target:.3g}.")
    warnings += describe_resplits(findings.problem)
    # recipes without a finished run show no number at all, and need no caveat
    counts, unit = [r.status_counts["finished"] for r in recipes], findings.problem.unit
    single = [n for n in counts if n == 1]
    if single:
        warnings.append(
            f"{format_count(len(single), 'recipe')} finished on one {unit} only: no interval there."
        )
    few = [n for n in counts if 2 <= n < SKEWED]
    if few and unit == "seed":
        number = f"{min(few)} to {max(few)}" if min(few) < max(few) else f"{few[0]}"
        warnings.append(
            f"Intervals of {number} seeds are Student's: read 95 % as 86 where risks are skewed, "
            "as of overfitted classifiers (docs/statistics.md)."
        )
    return warnings
