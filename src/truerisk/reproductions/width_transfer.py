"""The best rate falls as a network widens, and stays where it is under μP.

MLPs of three hidden layers on MNIST-1D, by Adam. The best rate is the lowest point of a parabola
through the three lowest train risks, in logarithms. How far a layer's outputs move is told by the
power of the width by which the root mean square of their change grows, of all layers the one
furthest from flat.

Length, samples and rates were chosen by pilots on seed 99: of 1,000 samples in 15 epochs, wide
networks learned all by heart, and had no best rate that would not depend on that. In three epochs
of 8,000 samples, for three times as long, seven of the eight claims held on seeds 10 to 15 and one
was open. The best rate is judged in one epoch, on seeds 20 to 24.

From 64 to 1024 wide, on those seeds, the change of outputs under μP had powers of -0.19 and -0.24
after one and two steps, which left two claims open. On seeds 90 to 94 it was the last layer's
alone: 0.26 + 2.2/√width and 0.33 + 4.9/√width, of which the second part goes as initial outputs do,
which vanish. So it is looked at from 256 on, and judged on seeds 30 to 41.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from truerisk.result import RunResult

FORMULA = "hidden and output weights: rate ∝ 1/width,   output weights begin ∝ 1/width"
SOURCE = "Yang et al. 2022, Tensor Programs V: Zero-Shot Hyperparameter Transfer"
TOPIC = "Depth, recurrence and initialization"
COST = "5 min"
CHECK = {
    "optimizer.lr": 4e-3,
    **{"trainer.max_epochs": -1, "trainer.max_steps": 10},
    **{"diagnostics": "[feature_change]", "diagnostics.feature_change.every.steps": 1},
}
QUICK = [
    *("seed=range(2)", "model.width=64,256", "data.source.num_samples=1500", "data.val=500"),
    write_grids(CHECK),
]
STEPS = (1, 2, 10)
"""After which steps the change of outputs is looked at."""
NAMES = {"standard": "standard parametrization", "mup": "μP"}


def list_kind(runs: Runs, kind: str, checked: bool) -> dict[float, list[RunResult]]:
    """List the runs of a parametrization by their width, those of one of the two grids.

    Args:
        runs: the study's.
        kind: ``standard`` or ``mup``.
        checked: whether of the grid that looks at outputs.
    """
    found: dict[float, list[RunResult]] = {}
    for run in runs:
        base = run.config.parametrization.base
        # an option's name is not kept, and the standard one has no base
        if ("mup" if base else "standard") == kind and bool(run.config.diagnostics) == checked:
            found.setdefault(read_setting(run, "model.width"), []).append(run)
    return dict(sorted(found.items()))


def find_risks(runs: list[RunResult]) -> dict[float, dict[float, float]]:
    """Read the last train risk, by the seed and the rate.

    Args:
        runs: of one width.
    """
    risks: dict[float, dict[float, float]] = {}
    for run in runs:
        by_rate = risks.setdefault(read_setting(run, "seed.base"), {})
        by_rate[read_setting(run, "optimizer.lr")] = float(read_series(run, "risk/train")[-1])
    return {seed: dict(sorted(by_rate.items())) for seed, by_rate in sorted(risks.items())}


def find_best_rate(risks: dict[float, float]) -> float:
    """Find log₂ of the rate with the lowest risk, by a parabola through the three lowest points.

    Args:
        risks: by the rate, in its order.

    >>> round(find_best_rate({2.0**k: 2.0 ** (k - 0.25) ** 2 for k in range(-3, 4)}), 12)
    0.25
    """
    # logarithms of both, in which the curves are nearly parabolas
    rates, values = np.log2(list(risks)), np.log2(list(risks.values()))
    best = int(np.nanargmin(values))
    # at an end of the grid there is no parabola, and the shift is told too small
    if best in (0, len(values) - 1):
        return float(rates[best])
    near = slice(best - 1, best + 2)
    a, b, _ = np.polyfit(rates[near] - rates[best], values[near], 2)
    return float(rates[best] - b / (2 * a))


def find_shifts(runs: Runs, kind: str) -> list[float]:
    """Compute, for each seed, log₂ of the best rate at the largest width over that at the least."""
    widths = [find_risks(group) for group in list_kind(runs, kind, checked=False).values()]
    if len(widths) < 2:
        return []
    # the same samples and order at both widths
    seeds = [seed for seed in widths[0] if seed in widths[-1]]
    return [find_best_rate(widths[-1][s]) - find_best_rate(widths[0][s]) for s in seeds]


def find_powers(runs: Runs, kind: str, step: int) -> dict[str, list[float]]:
    """Fit the power of the width by which a layer's change grows, by layer, for each seed."""
    sizes: dict[str, dict[float, list[tuple[float, float]]]] = {}
    for width, group in list_kind(runs, kind, checked=True).items():
        for run in group:
            # layers are those that the runs have logged
            rows = run.history[run.history.step == step]
            for name, value in zip(rows.name, rows.value, strict=True):
                if name.startswith("feature_change/change/"):
                    layer = sizes.setdefault(name.rpartition("/")[2], {})
                    layer.setdefault(read_setting(run, "seed.base"), []).append((width, value))
    return {layer: [fit_power(pairs) for pairs in seeds.values()] for layer, seeds in sizes.items()}


def fit_power(pairs: list[tuple[float, float]]) -> float:
    """Fit p of y ∝ xᵖ through pairs (x, y), by least squares of logarithms.

    >>> round(fit_power([(1.0, 3.0), (2.0, 6.0), (4.0, 12.0)]), 12)
    1.0
    """
    x, y = np.log(np.array(pairs)).T
    return float(np.polyfit(x, y, 1)[0])


def claim_change(kind: str, step: int, **bounds: float) -> Claim:
    """Make the claim on the layer whose change is furthest from flat in the width."""

    @claim(
        f"{NAMES[kind]}, after {step} step{'s' * (step > 1)}: the furthest power of the width",
        source="Yang et al. 2022, appendix D.1; table 3",
        why="a rate or weight that is wrong by a power of the width shows as ½ at least",
        **bounds,
    )
    def change(runs: Runs) -> Finding:
        powers = find_powers(runs, kind, step)
        # chosen by its mean over seeds, so that the interval is that of one layer
        furthest = max(powers.values(), key=lambda seeds: abs(np.mean(seeds)), default=[np.nan])
        return mean_finding(furthest)

    return change


standard_after_1 = claim_change("standard", 1, low=0.5)
standard_after_2 = claim_change("standard", 2, low=0.5)
standard_after_10 = claim_change("standard", 10, low=0.5)
mup_after_1 = claim_change("mup", 1, low=-0.25, high=0.25)
mup_after_2 = claim_change("mup", 2, low=-0.25, high=0.25)
mup_after_10 = claim_change("mup", 10, low=-0.25, high=0.25)


@claim(
    "standard parametrization: log₂ of the best rate at width 1024 over that at 64",
    source="Yang et al. 2022, figure 1: the optimum moves by an order of magnitude",
    why="by more than a factor of 4",
    high=-2.0,
)
def standard_moves(runs: Runs) -> Finding:
    """Over the seeds."""
    return mean_finding(find_shifts(runs, "standard") or [np.nan])


@claim(
    "μP: log₂ of the best rate at width 1024 over that at 64",
    source="Yang et al. 2022, figure 1",
    why="by less than a factor of 2",
    low=-1.0,
    high=1.0,
)
def mup_stays(runs: Runs) -> Finding:
    """Over the seeds."""
    return mean_finding(find_shifts(runs, "mup") or [np.nan])


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the train risk over the rate, and the change of outputs over the width.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    panels = figure.subplots(2, 2, sharey="row")
    tight = {"frameon": False, "columnspacing": 0.8, "handlelength": 1.0, "handletextpad": 0.4}
    for (above, below), kind in zip(panels.T, NAMES, strict=True):
        for i, (width, group) in enumerate(list_kind(runs, kind, checked=False).items()):
            risks = find_risks(group)
            rates = list(next(iter(risks.values())))
            values = np.array([list(by_rate.values()) for by_rate in risks.values()])
            above.loglog(rates, values.T, color=f"C{i}", linewidth=0.6, alpha=0.5)
            above.loglog(rates, values.mean(0), "o-", color=f"C{i}", label=f"{width:g}")
        kind_name = NAMES[kind].removesuffix(" parametrization")
        above.set(title=f"{kind_name}: train risk", xlabel="rate")
        # room for the legend below the curves, and few labels on an axis that is less than a decade
        above.set_ylim(bottom=0.6)
        above.set_yticks([1, 1.5, 2], ["1", "1.5", "2"])
        above.tick_params(axis="y", which="minor", labelleft=False)
        if above.lines:
            above.legend(loc="lower center", ncols=3, **tight)
        groups = list_kind(runs, kind, checked=True)
        for i, layer in enumerate(find_powers(runs, kind, STEPS[-1])):
            name = f"feature_change/change/{layer}"
            sizes = [
                np.mean([read_series(run, name)[STEPS[-1] - 1] for run in group])
                for group in groups.values()
            ]
            label = layer.removesuffix(".linear").replace("hidden.", "layer ")
            below.loglog(list(groups), sizes, "o-", color=f"C{i}", label=label)
        below.set(title=f"change of outputs, {STEPS[-1]} steps", xlabel="width")
        below.set_xticks(list(groups), [f"{width:g}" for width in groups], minor=False)
        below.minorticks_off()
        if below.lines:
            below.set_ylim(top=300)
            below.legend(loc="upper center", ncols=2, **tight)
