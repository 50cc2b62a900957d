"""With three trials each, which of 33 optimizers is best differs between four small problems.

All options of ``conf/optimizer`` but ``custom``, which is a class of your own, train for ten epochs
on 1000 samples: least squares (κ = 100), softmax regression, a student of a teacher network, an MLP
on MNIST-1D. The trials are an option's own step length, and two of Sobol's sequence over three
decades around 0.1, near the median of all defaults. The one with the lowest validation risk counts,
by the risk of its best weights under the true distribution, or on MNIST-1D's test set. Its distance
from the best of all trials is told as a share of guessing's: 0 is the best, 1 a constant. Targets
are validation risks that more than half of the options reached on another seed.

Adam is within a hundredth of the best on three of the problems, and a fifth behind on MNIST-1D,
where it is the 23rd. No option is the best on two of them: K-FAC, L-BFGS, Newton's method and
Adafactor are on one each. Whether Adam is near on average depends on the budget: with five trials,
Sobol's first four points, it was 0.033 [0.031, 0.035] behind; and ranks differed between problems
by 0.142 [−0.007, 0.291] more than by chance. That Adam does as well as momentum, three seeds leave
open with either.

Not shown: large models, long runs; other ranges; other numbers than the step length, such as β,
damping, a schedule, Muon's second step length: they stay at their defaults, by which some gain.
Budgets are equal in epochs, not in work: a full batch is one step an epoch where mini-batches are
ten, and what L-BFGS, line searches, Hessian products and proposals evaluate within a step is in the
seconds alone: those of one run on a machine that did other work, right to a factor of two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_metric,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "score = (R − R*)/(R₀ − R*),  ρ(r) = share of problems with t ≤ r · min t"
SOURCE = "Schmidt, Schneider & Hennig 2021, Descending through a Crowded Valley; Choi et al. 2019"
TOPIC = "Descent"
COST = "5 min"
LEFT_OUT = {"custom": "it has no optimizer until a class is named"}
"""Options of ``conf/optimizer`` that are not in the zoo, and why."""
RATES = (0.054, 0.58)
"""10^(3u − 5/2) of the first two u of Sobol's scrambled sequence."""
TIMING = 9
"""The seed of the runs that tell the time of an epoch."""
TARGETS = {"noisy_linear": 0.0125, "gaussians": 1.15, "teacher": 0.06, "mnist1d": 1.9}
"""Validation risks that are to be reached, by the problem's data."""
NAMES = {
    **{"noisy_linear": "least squares", "gaussians": "softmax", "teacher": "student"},
    **{"mnist1d": "MNIST-1D"},
}
_LINE: dict[str, Any] = {
    **{"optimizer": ["sgd", "momentum", "gd", "newton"], "seed": range(2)},
    **{"data.source.num_samples": 1500, "data.source.condition": 100, "data.source.noise": 0.1},
    **{"data.val": 500, "data.test": "null", "trainer.max_epochs": 5},
}
QUICK = [write_grids(_LINE, {**_LINE, "optimizer.lr": 0.054})]


class ZooTrial(NamedTuple):
    """One trial: its best weights' risks, the best constant's, and when it reached the target."""

    val: float
    unseen: float
    guess: float
    is_default: bool
    epochs: float
    steps: float


Instance = tuple[str, int]
"""A problem by the name of its data, and a seed."""


def read_trial(run: RunResult) -> ZooTrial:
    """Read a trial from its run; a diverged one has infinite risks."""
    rows = read_metric(run, "risk/val")
    reached = np.flatnonzero(rows.value <= TARGETS[read_setting(run, "choices.data")])
    val = unseen = epochs = steps = math.inf
    if len(reached):
        epochs, steps = float(rows.epoch[reached[0]]), float(rows.step[reached[0]])
    rate = read_setting(run, "optimizer.lr") or read_setting(run, "optimizer.base.lr")
    summary = run.summary
    if run.status == "finished":
        val = summary["risk/val"].value
        # P is known but for MNIST-1D
        unseen = (summary.get("risk/true") or summary["risk/test"]).value
    guess = summary["constant/risk/val"].value if "constant/risk/val" in summary else math.nan
    return ZooTrial(val, unseen, guess, rate not in RATES, epochs, steps)


@lru_cache(maxsize=1)
def collect_trials(runs: Runs) -> dict[Instance, dict[str, list[ZooTrial]]]:
    """Collect the trials of each optimizer, by problem and seed."""
    found: dict[Instance, dict[str, list[ZooTrial]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        seed = read_setting(run, "seed.base")
        if seed != TIMING and run.status in ("finished", "diverged"):
            instance = read_setting(run, "choices.data"), seed
            found[instance][read_setting(run, "choices.optimizer")].append(read_trial(run))
    return found


def pick_trial(trials: list[ZooTrial]) -> ZooTrial:
    """Pick the trial with the lowest validation risk, as who tunes would."""
    return min(trials, key=lambda trial: trial.val)


def scale_risk(trial: ZooTrial, own: dict[str, list[ZooTrial]]) -> float:
    """Compute the share of guessing's distance from the best of all trials, at most 1.

    Args:
        trial: of the instance.
        own: all trials of the instance.
    """
    if not math.isfinite(trial.unseen):
        return 1.0
    best = min(other.unseen for trials in own.values() for other in trials)
    return min(1.0, (trial.unseen - best) / (trial.guess - best))


def tuned_scores(runs: Runs) -> dict[Instance, dict[str, float]]:
    """Compute the score of each optimizer's picked trial, by problem and seed."""
    return {
        instance: {name: scale_risk(pick_trial(trials), own) for name, trials in own.items()}
        for instance, own in collect_trials(runs).items()
    }


def average_problems(values: dict[Instance, float]) -> Finding:
    """Average over problems, and estimate the mean over seeds."""
    seeds = defaultdict(list)
    for (_, seed), value in values.items():
        seeds[seed].append(value)
    return mean_finding([float(np.mean(own)) for own in seeds.values()])


@claim(
    "trials of an optimizer on a problem: the fewest over the most",
    source="Sivaprasad et al. 2020, Optimizer Benchmarking Needs to Account for Tuning",
    why="an equal budget",
    expected=1.0,
    within=0.0,
)
def equal_trials(runs: Runs) -> Finding:
    """Over all problems and seeds; none at all counts too."""
    found = collect_trials(runs)
    # one whose runs have all failed is among them
    names = {read_setting(run, "choices.optimizer") for run in runs}.union(*found.values())
    counts = [len(own.get(name, [])) for own in found.values() for name in names]
    return exact_finding(min(counts) / max(counts))


@claim(
    "rank correlation of the scores: between seeds, less that between problems",
    source="Schmidt et al. 2021, conclusion (i): performance varies greatly across tasks",
    why="the sign alone; chance lowers both alike",
    low=0.0,
)
def ranks_differ(runs: Runs) -> Finding:
    """Spearman's, mean over pairs."""
    from scipy.stats import rankdata

    scores = tuned_scores(runs)
    names = sorted({name for own in scores.values() for name in own})
    ranks = {i: rankdata([own.get(name, 1.0) for name in names]) for i, own in scores.items()}
    alike: dict[int, list[float]] = defaultdict(list)
    other: dict[int, list[float]] = defaultdict(list)
    for (p, s), (q, t) in combinations(ranks, 2):
        correlation = float(np.corrcoef(ranks[p, s], ranks[q, t])[0, 1])
        if p == q:
            alike[s].append(correlation)
            alike[t].append(correlation)
        elif s == t:
            other[s].append(correlation)
    return mean_finding([float(np.mean(alike[s]) - np.mean(other[s])) for s in other])


@claim(
    "Adam: its score, less that of the best by validation of all",
    source="Schmidt et al. 2021, conclusion (iii): Adam remains a strong contender",
    why="a twentieth of what there is to gain over guessing",
    high=0.05,
)
def adam_is_near(runs: Runs) -> Finding:
    """Mean over problems, of each seed."""
    differences = {}
    for instance, own in collect_trials(runs).items():
        differences[instance] = math.nan
        if "adam" not in own:  # nor is it in the quick study
            continue
        # chosen by validation too, as the lowest of many test risks is low by luck
        best = pick_trial([trial for trials in own.values() for trial in trials])
        differences[instance] = scale_risk(pick_trial(own["adam"]), own) - scale_risk(best, own)
    return average_problems(differences)


def expect_best(trials: list[ZooTrial], own: dict[str, list[ZooTrial]], k: int) -> float:
    """Compute the expected score of the best by validation of k random trials.

    Args:
        trials: to choose from.
        own: all trials of the instance.
        k: how many are drawn.
    """
    ordered = sorted(trials, key=lambda trial: trial.val)
    n = len(ordered)
    # the i-th is the best of k if the others are drawn from those after it
    chances = [math.comb(n - 1 - i, k - 1) / math.comb(n, k) for i in range(n)]
    return sum(c * scale_risk(t, own) for c, t in zip(chances, ordered, strict=True))


@claim(
    "three random optimizers untuned, the best by validation, less a random one tuned: scores",
    source="Schmidt et al. 2021, conclusion (ii): approximately as well",
    why="a tenth of what there is to gain over guessing",
    expected=0.0,
    within=0.1,
)
def untuned_ones_do(runs: Runs) -> Finding:
    """As many optimizers as one has trials, in expectation; mean over problems, of each seed."""
    differences, scores = {}, tuned_scores(runs)
    for instance, own in collect_trials(runs).items():
        defaults = [trial for trials in own.values() for trial in trials if trial.is_default]
        k = max(map(len, own.values()))
        differences[instance] = math.nan
        if len(defaults) >= k:
            one = float(np.mean(list(scores[instance].values())))
            differences[instance] = expect_best(defaults, own, k) - one
    return average_problems(differences)


def claim_inclusion(general: str, special: str, source: str) -> Claim:
    """Make the claim that an optimizer does as well as one that it includes.

    Args:
        general: the option's name.
        special: that of a limiting case.
        source: who says so.
    """

    @claim(
        f"{general}: its score, less that of {special}",
        source=source,
        why="a fiftieth of what there is to gain, as β and ε are not tuned here",
        high=0.02,
    )
    def difference(runs: Runs) -> Finding:
        scores = tuned_scores(runs).items()
        # the quick study has not both
        risks = {i: (own.get(general, math.nan), own.get(special, math.nan)) for i, own in scores}
        return average_problems({i: one - other for i, (one, other) in risks.items()})

    return difference


CHOI = "Choi et al. 2019, On Empirical Comparisons of Optimizers for Deep Learning, §3 and §4"
momentum_includes_sgd = claim_inclusion("momentum", "sgd", CHOI)
adam_includes_momentum = claim_inclusion("adam", "momentum", CHOI)


@claim(
    "least squares: gradient descent's steps to the target over Newton's",
    source="Nocedal & Wright 2006, §3.3",
    why="Newton's is one step; ten of descent may leave (99/101)²⁰ = 0.67 of J − J*: half of ten",
    low=5.0,
)
def newton_is_ahead(runs: Runs) -> Finding:
    """The fastest of descent's trials; one that does not get there counts as a step more."""
    ratios = []
    epochs = read_setting(runs[0], "trainer.max_epochs")
    for (problem, _), own in collect_trials(runs).items():
        if problem == "noisy_linear":
            names = [name for name in own if name == "gd" or name.startswith("gd_")]
            descent = min(trial.steps for name in names for trial in own[name])
            newton = min(trial.steps for trial in own["newton"])
            ratios.append(min(descent, epochs + 1) / min(newton, epochs + 1))
    return mean_finding(ratios)


def epoch_seconds(runs: Runs) -> dict[tuple[str, str], float]:
    """Compute the seconds of an epoch, by problem and optimizer, of runs that ran by themselves."""
    found = {}
    for run in runs:
        status = run.run.status()
        alone = status.get("together", 1) == 1
        if read_setting(run, "seed.base") == TIMING and run.status == "finished" and alone:
            key = read_setting(run, "choices.data"), read_setting(run, "choices.optimizer")
            # building and measuring are in it, a few milliseconds an epoch
            found[key] = status["seconds"] / read_setting(run, "trainer.max_epochs")
    return found


def target_times(runs: Runs, unit: str) -> dict[Instance, dict[str, float]]:
    """Find what each optimizer's fastest trial took to the target, infinite where none got there.

    Args:
        runs: the study's.
        unit: ``steps`` or ``seconds``.
    """
    seconds = epoch_seconds(runs)
    times: dict[Instance, dict[str, float]] = {}
    for (problem, seed), own in collect_trials(runs).items():
        times[problem, seed] = found = {}
        for name, trials in own.items():
            if unit == "steps":
                found[name] = min(trial.steps for trial in trials)
            elif (problem, name) in seconds:  # none in the quick study
                found[name] = min(trial.epochs for trial in trials) * seconds[problem, name]
    return times


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw every optimizer's risk on each problem, its times to the target, and their profiles.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    from matplotlib.ticker import NullFormatter

    from truerisk.verdicts.gallery import set_decimal_ticks

    found, scores = collect_trials(runs), tuned_scores(runs)
    problems = [name for name in NAMES if any(name == problem for problem, _ in found)]
    names = sorted({name for own in found.values() for name in own})
    # the best comes first: by the mean score, 1 where an optimizer has none
    names.sort(key=lambda name: sum(own.get(name, 1.0) for own in scores.values()))
    # 33 names need a page
    height = 0.16 * len(names) + 0.8
    figure.set_size_inches(7.2, height + 2.6)
    halves: Any = figure.subfigures(2, 1, height_ratios=(height, 2.6))
    above, below = halves
    columns = above.subplots(1, len(problems) + 2, sharey=True)
    full = {
        read_setting(run, "choices.optimizer")
        for run in runs
        if read_setting(run, "data.batch_size") == "full"
    }
    colors = ["C1" if name in full else "C0" for name in names]
    for axes, problem in zip(columns, problems, strict=False):
        draw_risks(axes, problem, names, colors, found)
    for axes, unit in zip(columns[-2:], ("steps", "seconds"), strict=True):
        times = target_times(runs, unit)
        for row, (name, color) in enumerate(zip(names, colors, strict=True)):
            middle = float(np.median([own.get(name, math.inf) for own in times.values()]))
            if math.isfinite(middle):
                axes.plot(middle, row, "o", color=color, markersize=3.5)
        axes.set(xscale="log")
        axes.set_title(unit, fontsize=8)
    if any(np.isfinite(list(own.values())).any() for own in times.values()):
        set_decimal_ticks(columns[-1].xaxis)
    for axes in columns:
        axes.tick_params(axis="x", labelsize=7)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(len(names) - 0.3, -0.7)
    columns[0].set_yticks(range(len(names)), names, fontsize=8)
    for label, color in zip(columns[0].get_yticklabels(), colors, strict=True):
        label.set_color(color)
    above.suptitle(
        "risk of the trial picked, 95 % over seeds (> beyond); median to the target\n"
        "in blue by mini-batches, in orange on the full batch",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    for axes, unit in zip(below.subplots(1, 2, sharey=True), ("steps", "seconds"), strict=True):
        draw_profiles(axes, unit, target_times(runs, unit))


def draw_risks(
    axes: Axes,
    problem: str,
    names: list[str],
    colors: list[str],
    found: dict[Instance, dict[str, list[ZooTrial]]],
) -> None:
    """Draw the risk of each optimizer's picked trials on a problem, with its interval.

    Args:
        axes: empty ones.
        problem: its data's name.
        names: of optimizers, from above.
        colors: theirs.
        found: all trials.
    """
    from matplotlib.ticker import MaxNLocator

    own = [trials for (p, _), trials in found.items() if p == problem]
    estimates = []
    for name in names:
        risks = [pick_trial(trials[name]).unseen for trials in own if name in trials]
        estimates.append(mean_finding([risk for risk in risks if math.isfinite(risk)]))
    values = [estimate.value for estimate in estimates]
    # the worst few would press the others together
    least, most = np.nanquantile(values, [0.0, 0.85])
    margin = 0.15 * (most - least)
    for row, (estimate, color) in enumerate(zip(estimates, colors, strict=True)):
        if estimate.value > most + margin:
            axes.plot(most + margin, row, ">", color=color, markersize=3.5)
            continue
        axes.plot([estimate.low, estimate.high], [row, row], color=color, linewidth=1.2)
        axes.plot(estimate.value, row, "o", color=color, markersize=3.5)
    axes.set_xlim(least - margin, most + 1.5 * margin)
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.set_title(NAMES[problem], fontsize=8)


def draw_profiles(axes: Axes, unit: str, times: dict[Instance, dict[str, float]]) -> None:
    """Draw performance profiles, and name the five with the most area below them.

    Args:
        axes: empty ones.
        unit: what the times are in.
        times: of each optimizer, by problem and seed.
    """
    from truerisk.reports.tuning_curves import performance_profile

    profiles = performance_profile([own for own in times.values() if own])
    end = 100.0
    areas = {}
    for name, (ratios, shares) in profiles.items():
        # the area below a step function of the ratio's logarithm
        edges = np.log(np.append(np.minimum(ratios, end), end))
        areas[name] = float(np.diff(edges) @ shares)
    best = sorted(areas, key=lambda name: -areas[name])[:5]
    for name in sorted(profiles, key=lambda name: name in best):
        ratios, shares = profiles[name]
        style: dict[str, Any] = {"color": "gray", "linewidth": 0.5, "alpha": 0.5}
        if name in best:
            style = {"color": f"C{best.index(name)}", "linewidth": 1.6, "label": name}
        axes.step(np.append(ratios, end), np.append(shares, shares[-1]), where="post", **style)
    axes.set(xscale="log", xlim=(1, end), ylim=(0, 1.03))
    axes.set_title(f"share solved within r times the least {unit}", fontsize=8)
    axes.set_xlabel("r", fontsize=9)
    axes.tick_params(labelsize=8)
    if best:
        axes.legend(fontsize=7, loc="lower right", framealpha=0.9, edgecolor="none")
