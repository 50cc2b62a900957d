"""Normalized inputs and layers widen the range of step lengths that train, and lower the condition.

Least squares has the Hessian 2 E x̃x̃ᵀ, x̃ being the sample and a 1 for the bias. Of standardized
inputs that is twice their correlation matrix, and a 2; else means and scales are in it.
Descent is stable below 2/λmax, and takes some κ steps along the flattest direction.

Networks of six hidden layers, with He's weights, train at a step length if they leave half of
chance, ln 10, behind in 30 epochs of SGD. Their Hessian is indefinite, with eigenvalues near
0. What is compared is how far λmax stands out of the mean eigenvalue, tr ∇²J/p, after five epochs,
of J as training sees it: normalized by the batch. At initial weights, tried first, the trace may be
negative. What layer norm does to either is not to be seen here: three other seeds left it open, and
so do six. Step lengths of 0.001 and 30, at which no network of a first look trained, are left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "∇²J = 2 E x̃x̃ᵀ   →   2 (corr x ⊕ 1);   layers: a ← γ (a − E a)/√(Var a + ε) + β"
SOURCE = "Santurkar et al. 2018, How Does Batch Normalization Help Optimization?"
TOPIC = "Depth, recurrence and initialization"
COST = "3 min"
NORM, RATE = "model.normalization", "optimizer.lr"
LINEAR: dict[str, Any] = {
    **{"data": "diabetes", "loss": "mse", "model": "linear", "optimizer": "gd"},
    **{"initializer": "zeros", "data.test": "null", "trainer.precision": "64-true"},
    **{"diagnostics": "[curvature]", "diagnostics.curvature.every.epochs": 300},
    **{"risk.every": 300, "risk.train_samples": 1000, "trainer.max_epochs": 300},
}
QUICK = [
    write_grids(
        {**LINEAR, "data.standardize": "none", RATE: [1.3e-5, 1.4e-5], "seed": range(2)},
        {**LINEAR, "data.standardize": "feature", RATE: [0.24, 0.26], "seed": range(2)},
    ),
]
CHANCE = math.log(10)
NAMES = {"none": "none", "batch": "batch norm", "layer": "layer norm"}
LECUN = "LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, §4.3 and §5.3"


def fitted_lines(runs: Runs, standardize: str | None = None) -> Runs:
    """Pick the runs of least squares.

    Args:
        runs: the study's.
        standardize: how inputs are scaled; None for both ways.
    """
    lines = runs.with_setting("choices.model", "linear")
    if standardize is None:
        return lines
    return lines.with_setting("data.standardize", standardize)


def predict_eigenvalues(run: RunResult) -> np.ndarray:
    """Compute the Hessian's eigenvalues [11] from the raw training samples, in ascending order."""
    from omegaconf import OmegaConf

    from truerisk.assemble import build_data

    # in their own units, whatever the run has made of them
    raw: Any = OmegaConf.merge(run.config, {"data": {"standardize": "none"}})
    train: Any = build_data(raw).train
    x = train.x.double().numpy()
    second = x.T @ x / len(x)
    mean = x.mean(0)
    if read_setting(run, "data.standardize") == "feature":
        covariance = second - np.outer(mean, mean)
        scales = np.sqrt(np.diag(covariance))
        second, mean = covariance / np.outer(scales, scales), np.zeros_like(mean)
    h = 2 * np.block([[second, mean[:, None]], [mean[None], np.ones((1, 1))]])
    return np.linalg.eigvalsh(h)


@claim(
    "least squares: κ of the Hessian over that of 2 E x̃x̃ᵀ, or of 2 (corr x ⊕ 1)",
    source=LECUN,
    why="rounding in double precision, times κ of 5·10⁷",
    expected=1.0,
    within=1e-7,
)
def condition_in_closed_form(runs: Runs) -> Finding:
    """The run furthest from 1."""
    ratios = []
    for run in fitted_lines(runs):
        values = predict_eigenvalues(run)
        ratios.append(float(read_series(run, "curvature/condition")[0] * values[0] / values[-1]))
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


@claim(
    "descent ends higher than it began just where η > 2/λmax of that; share of runs",
    source=LECUN,
    why="every run has to",
    expected=1.0,
    within=0.0,
)
def range_in_closed_form(runs: Runs) -> Finding:
    """After 300 steps."""
    right = []
    for run in fitted_lines(runs):
        values = read_series(run, "objective")
        limit = 2 / predict_eigenvalues(run)[-1]
        rises = run.status == "diverged" or values[-1] > values[0]
        right.append(rises == (read_setting(run, RATE) > limit))
    return exact_finding(float(np.mean(right)))


@claim(
    "standardized, κ is smaller: log₁₀ of the ratio, at most",
    source=LECUN,
    why="the sign alone; in theory at most log₁₀ 11, whatever the data (van der Sluis 1969)",
    high=0.0,
)
def standardizing_lowers_condition(runs: Runs) -> Finding:
    """Mean over training sets."""
    logs = []
    for group in fitted_lines(runs).grouped_by("seed.base").values():
        raw, scaled = (
            read_series(fitted_lines(group, way)[0], "curvature/condition")[0]
            for way in ("none", "feature")
        )
        logs.append(math.log10(scaled / raw))
    return mean_finding(logs)


def networks(runs: Runs, normalization: str) -> Runs:
    """Pick the networks that are trained, of one kind.

    Args:
        runs: the study's.
        normalization: the setting.
    """
    kind = {"choices.model": "mlp", NORM: normalization, "diagnostics.curvature": None}
    return runs.with_settings(kind)


def last_risk(run: RunResult) -> float:
    """Read the training risk at the end, at most chance, which is what a diverged run counts as."""
    if run.status == "diverged":
        return CHANCE
    return min(CHANCE, float(read_series(run, "risk/train")[-1]))


def count_decades(group: Runs) -> float:
    """Count the decades of step lengths that train, by the spacing of those there are."""
    rates = sorted(read_setting(run, RATE) for run in group)
    spacing = math.log10(rates[-1] / rates[0]) / (len(rates) - 1)
    return spacing * sum(last_risk(run) < CHANCE / 2 for run in group)


def claim_range(normalization: str, source: str) -> Claim:
    """Make the claim on the decades of step lengths that a kind of network trains at.

    Args:
        normalization: the setting.
        source: who says so.
    """

    @claim(
        f"{NAMES[normalization]}: decades of step lengths that train, less those without",
        source=source,
        why="half of what lies between two step lengths of the grid",
        low=0.25,
    )
    def wider(runs: Runs) -> Finding:
        plain = networks(runs, "none").grouped_by("seed.base")
        normed = networks(runs, normalization).grouped_by("seed.base")
        return mean_finding([count_decades(normed[s]) - count_decades(plain[s]) for s in plain])

    return wider


batch_norm_widens = claim_range("batch", "Santurkar et al. 2018, §2; Ioffe & Szegedy 2015, §3.3")
layer_norm_widens = claim_range("layer", "Ba, Kiros & Hinton 2016, Layer Normalization, §5")


def read_conditions(runs: Runs, normalization: str) -> dict[int, float]:
    """Read λmax over the mean eigenvalue at the last look, by seed.

    Args:
        runs: the study's.
        normalization: the setting.
    """
    kind = {"choices.model": "mlp", NORM: normalization}
    looked = [r for r in runs.with_settings(kind) if read_setting(r, "diagnostics.curvature")]
    found = {}
    for run in looked:
        size = sum(p.numel() for p in run.network.parameters())
        largest, trace = (
            float(read_series(run, f"curvature/{name}")[-1]) for name in ("lambda_max", "trace")
        )
        found[read_setting(run, "seed.base")] = largest * size / trace
    return found


def claim_condition(normalization: str, source: str) -> Claim:
    """Make the claim that a network's λmax stands out less.

    Args:
        normalization: the setting.
        source: who says so.
    """

    @claim(
        f"{NAMES[normalization]}: λmax over the mean eigenvalue, log₁₀ of the ratio to none",
        source=source,
        why="the sign alone",
        high=0.0,
    )
    def lower(runs: Runs) -> Finding:
        plain, normed = (read_conditions(runs, kind) for kind in ("none", normalization))
        return mean_finding([math.log10(normed[s] / plain[s]) for s in plain])

    return lower


GHORBANI = "Santurkar et al. 2018, §3; Ghorbani, Krishnan & Xiao 2019, §4: outliers vanish"
batch_norm_lowers = claim_condition("batch", GHORBANI)
layer_norm_lowers = claim_condition("layer", "Xu et al. 2019, Layer Normalization, §3; as above")


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the training risk over the step length, and λmax over the mean eigenvalue by kind.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    if not networks(runs, "none"):  # the quick study has least squares alone
        _draw_least_squares(runs, figure.add_subplot())
        return
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, (kind, name) in enumerate(NAMES.items()):
        left.plot([], [], "o-", color=f"C{i}", lw=1.2, ms=4, label=name)
        for group in networks(runs, kind).grouped_by("seed.base").values():
            by_rate = group.grouped_by(RATE)
            risks = [last_risk(found.only_run) for found in by_rate.values()]
            left.plot(list(by_rate), risks, "o-", color=f"C{i}", lw=1.2, ms=4)
        values = list(read_conditions(runs, kind).values())
        right.plot([i] * len(values), values, "o", color=f"C{i}", ms=5)
    left.axhline(CHANCE / 2, color="gray", linestyle=":", linewidth=1.2, label="half of chance")
    left.set(
        xscale="log", xlim=(2e-3, 15), xlabel="step length", title="training risk after 30 epochs"
    )
    where = {"loc": "upper center", "bbox_to_anchor": (0.42, 1.0)}  # between the curves
    left.legend(title="a line a seed", fontsize="x-small", title_fontsize="x-small", **where)
    right.set_xticks(range(3), [name.replace(" ", "\n") for name in NAMES.values()])
    right.set(yscale="log", xlim=(-0.5, 2.5), ylim=(100, 10_000), title="λmax / mean eigenvalue")
    right.set_xlabel("after 5 epochs")


def _draw_least_squares(runs: Runs, axes: Axes) -> None:
    """Draw how far J falls or rises in 300 steps, over the step length as a share of 2/λmax."""
    for i, (way, name) in enumerate({"none": "raw inputs", "feature": "standardized"}.items()):
        group = list(fitted_lines(runs, way))
        shares = [read_setting(run, RATE) * predict_eigenvalues(run)[-1] / 2 for run in group]
        values = [read_series(run, "objective") for run in group]
        axes.plot(shares, [v[-1] / v[0] for v in values], "o", color=f"C{i}", label=name)
    axes.axhline(1, color="gray", linestyle=":", linewidth=1.2)
    axes.axvline(1, color="gray", linestyle=":", linewidth=1.2, label="2/λmax, and no change")
    axes.set(yscale="log", xlabel="step length · λmax / 2")
    axes.set_title("least squares: J after 300 steps, over J before")
    axes.text(
        0.03, 0.5, "networks: no runs\n(--quick has none)", color="gray", transform=axes.transAxes
    )
    axes.legend(fontsize="small", frameon=False, loc="upper left")
