"""Numbers and findings in words, for the page and the terminal alike."""

from __future__ import annotations

import math
from collections import Counter

from truerisk.reports.compare import TOO_FEW, Comparison, verdict
from truerisk.reports.estimate import Estimate
from truerisk.reports.findings import Findings
from truerisk.reports.selection import Selection
from truerisk.reports.study import ENDINGS, TITLES, Recipe, Study
from truerisk.show.number import format_fixed, format_with_stderr, leading_power


def interval(e: Estimate, scale: float = 1.0) -> str:
    """A mean and its interval, to two digits of the interval's width.

    >>> interval(Estimate(0.5234, 0.01, 0.5034, 0.5434, 5))
    '0.523 [0.503, 0.543]'
    """
    if not math.isfinite(e.low) or e.high == e.low:
        return format_with_stderr(scale * e.mean, None) if e.n else "–"
    last = leading_power(scale * (e.high - e.low)) - 1
    if last < -6:
        return f"{scale * e.mean:.3g} [{scale * e.low:.3g}, {scale * e.high:.3g}]"
    mean, low, high = (format_fixed(scale * v, last) for v in (e.mean, e.low, e.high))
    return f"{mean} [{low}, {high}]"


def mean(e: Estimate, scale: float = 1.0) -> str:
    """A mean and its standard error over seeds.

    >>> mean(Estimate(0.5234, 0.0123, 0.49, 0.55, 5)), mean(Estimate(0.5, math.nan, 0, 0, 1))
    ('0.523 ± 0.012', '0.5000')
    """
    if not e.n:
        return "–"
    return format_with_stderr(scale * e.mean, scale * e.stderr if e.stderr > 0 else None)


def p_value(p: float) -> str:
    """A p-value to two digits.

    >>> p_value(0.0312), p_value(1e-9), p_value(math.nan), p_value(1.0)
    ('0.031', '< 0.0001', '–', '1')
    """
    if math.isnan(p):
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def endings(recipe: Recipe) -> str:
    """How a recipe's runs ended, where not all finished.

    The number of runs comes first.
    """
    counts = recipe.counts
    others = [f"{counts[name]} {name}" for name in ENDINGS[1:] if counts[name]]
    halved = sum(run.halved for run in recipe.runs)
    others += [f"{halved} halved"] if halved else []
    return ", ".join([f"{counts['finished']} of {len(recipe.runs)}" if others else
                      str(len(recipe.runs)), *others])  # fmt: skip


def counted(study: Study) -> str:
    """How many runs there are and how they ended."""
    counts = study.counts
    told = ", ".join(f"{counts[name]} {name}" for name in ENDINGS if counts[name])
    recipes = sum(len(problem.recipes) for problem in study.problems)
    problems = len(study.problems)
    where = f" on {problems} problems" if problems > 1 else ""
    return f"{plural(len(study.runs), 'run')} of {plural(recipes, 'recipe')}{where}: {told}"


def plural(count: int, word: str) -> str:
    """A number of things.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {word}{'' if count == 1 else 's'}"


def headline(found: Findings) -> list[str]:
    """What one may say of a problem, sentence by sentence."""
    chosen = found.selection
    if chosen is None:
        return ["No run has finished with a validation risk yet, so nothing is selected."]
    unseen = found.problem.unseen
    told = [picked(chosen), judged(chosen, unseen), curse(chosen)]
    if unseen in found.comparisons:
        told.append(against(chosen, found.comparisons[unseen], unseen))
    return [*filter(None, [*told, *warnings(found)])]


def picked(chosen: Selection) -> str:
    """Which recipe was selected, and by which number."""
    label, risk = chosen.recipe.label, f"{mean(chosen.val)} over {plural(chosen.val.n, 'seed')}"
    if chosen.among == 1:
        return f"The validation risk of the only recipe, {label}, is {risk}."
    return f"Of {chosen.among} recipes, {label} has the lowest validation risk: {risk}."


def judged(chosen: Selection, unseen: str) -> str:
    """The risk on unseen data of what was selected."""
    if unseen == "risk/val" or not chosen.unseen.n:
        return (
            "There is no test risk, so nothing here estimates its risk on unseen data: the "
            "validation risk is what it was picked by."
        )
    name = TITLES[unseen]
    seeds = "mean and 95 % interval over seeds" if chosen.unseen.n > 1 else "one seed"
    told = f"Its {name} is {interval(chosen.unseen)} ({seeds})."
    if chosen.difference.n:
        told += f" {name.capitalize()} minus validation risk: {interval(chosen.difference)}."
    return told


def curse(chosen: Selection) -> str:
    """The optimism of selection."""
    if chosen.among < 2:
        return ""
    if not math.isfinite(chosen.optimism):
        return "With fewer than two seeds the optimism of selection cannot be estimated."
    if chosen.optimism == 0:
        return (
            "Optimism of selection: none shown. The pick is the same whichever seed is left out, "
            "so choosing among these recipes did not make the number better than it is."
        )
    return (
        "Optimism of selection: picked on all seeds but one and measured on that one, in turn, the "
        f"validation risk is {chosen.optimism:+.2g} against the number above; the risk on unseen "
        f"data, measured so, is {mean(chosen.crossfit)}."
    )


def against(chosen: Selection, comparisons: list[Comparison], metric: str) -> str:
    """How the selected recipe compares with the others."""
    label = chosen.recipe.label
    own = [c for c in comparisons if c.first == label]
    if not own:
        return ""
    said = Counter(verdict(c) for c in own)
    few, lower, higher = (said.pop(words, 0) for words in (TOO_FEW, "lower", "higher"))
    if few == len(own):
        those = "those of the others" if few > 1 else "that of the other"
        return f"There are too few runs to tell its {TITLES[metric]} from {those}."
    rest = sum(said.values())
    others = f" of the {len(own)} others" if len(own) > 1 else ""
    named = {"lower than": lower, "higher than": higher, "not shown to differ from": rest}
    named["on too few runs to be told from"] = few
    parts = [f"{how} that of {n if others else 'the other'}" for how, n in named.items() if n]
    adjusted = f", adjusted for {plural(own[0].family, 'comparison')}" if others else ""
    return (
        f"Its {TITLES[metric]} is {', '.join(parts)}{others} "
        f"(paired by seed where seeds are shared{adjusted})."
    )


def warnings(found: Findings) -> list[str]:
    """What makes the numbers less than they seem."""
    recipes = found.problem.recipes
    lost = [r for r in recipes if r.counts["diverged"] or r.counts["failed"]]
    notes = []
    if lost:
        notes.append(
            f"Runs of {plural(len(lost), 'recipe')} diverged or failed. Means are over the runs "
            "that finished, which flatters those recipes; they lose in selection and in the "
            "probability of improvement."
        )
    halved = sum(run.halved for r in recipes for run in r.runs)
    if halved:
        notes.append(
            f"{plural(halved, 'run')} ended early by successive halving: the risks there are those "
            "of shorter training, and count as they are."
        )
    few = [r for r in recipes if r.counts["finished"] == 1]
    if few:
        notes.append(f"{plural(len(few), 'recipe')} finished on one seed only: no interval there.")
    return notes
