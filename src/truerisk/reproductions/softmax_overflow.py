"""A naive softmax of [1000, 990, 980] overflows; shifted by its maximum it is exact.

The cross-entropy computed from the logits stays finite where the logarithm of a softmax does not:
exp of a very negative number is rounded to 0, whose logarithm is −∞. In float32, bfloat16 and
float16 alike, each at the largest and the smallest number that it has.

bfloat16 has 8 significant bits, which round 990 to 992; errors are counted from the logits as the
format has them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exact_finding, read_series

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "softmax(w)ₖ = exp wₖ / Σ exp wⱼ = exp(wₖ − m) / Σ exp(wⱼ − m);   m = max w"
SOURCE = "Goodfellow, Bengio & Courville 2016, Deep Learning, §4.1"
TOPIC = "Numbers"
COST = "30 s"
QUICK: list[str] = []
BLANCHARD = "Blanchard, Higham & Higham 2021, §4"
TICKS = (-1000, -100, -10, 0, 10, 100, 1000)
DOT: dict[str, Any] = {"marker": "o", "markersize": 8, "zorder": 4}
CROSS: dict[str, Any] = {"marker": "X", "markersize": 11, "zorder": 3}
FORMATS = ("float64", "float32", "bfloat16", "float16")


def format_limits(run: RunResult) -> torch.finfo:
    """Look up the largest and smallest number of a run's format, and its rounding unit."""
    import torch

    return torch.finfo(getattr(torch, run.config.model.format))


def rounded_logits(run: RunResult) -> torch.Tensor:
    """Read the logits, rounded to the run's format, in float64."""
    import torch

    w = torch.tensor(list(run.config.model.start), dtype=torch.float64)
    return w.to(getattr(torch, run.config.model.format)).double()


def is_finite(run: RunResult) -> bool:
    """Say whether the function was finite at the start: a run in which it is not has no risk.

    What happened in a step after it does not count: the gradient of a logarithm may overflow first.
    """
    # a risk that is not finite is not logged
    return len(read_series(run, "risk/train")) > 0


def largest_exponent(run: RunResult) -> float:
    """Compute the largest w whose exponential the format has."""
    return math.log(format_limits(run).max)


def smallest_exponent(run: RunResult) -> float:
    """Compute the smallest w whose exponential is not rounded to 0: half the smallest number is."""
    info = format_limits(run)
    # subnormal numbers go down to ε times the smallest normal one, and half of that rounds up
    return math.log(info.smallest_normal) + math.log(info.eps / 2)


def share_predicted(agree: list[bool]) -> Finding:
    """Compute the share of runs that end as predicted."""
    return exact_finding(sum(agree) / len(agree))


@claim(
    "naive softmax overflows just where a logit exceeds ln(largest number); share of runs",
    source=SOURCE,
    why="finite or not is no matter of degree",
    expected=1.0,
    within=0.0,
)
def naive_overflows(runs: Runs) -> Finding:
    """All logits and formats, [1000, 990, 980] among them."""
    naive = runs.with_setting("model.form", "naive")
    fits = [float(rounded_logits(run).max()) < largest_exponent(run) for run in naive]
    return share_predicted([is_finite(run) == fit for run, fit in zip(naive, fits, strict=True)])


@claim(
    "the shifted one is exact on [1000, 990, 980]; error of −log softmax, in units of rounding",
    source=BLANCHARD,
    why="exp, sum, quotient and logarithm are each rounded once, the logarithm's result may be 10",
    high=8.0,
)
def shifted_is_exact(runs: Runs) -> Finding:
    """The largest error over the formats, of the first and the second class, in units of ε."""
    shown = runs.with_settings({"model.form": "shifted", "model.start": (1000.0, 990.0, 980.0)})
    return exact_finding(max(map(_rounding_error, shown)))


def _rounding_error(run: RunResult) -> float:
    if not is_finite(run):
        return math.inf
    # from the logits as the format has them: rounding those is not the softmax's error
    exact = -rounded_logits(run).log_softmax(-1)[run.config.model.target]
    return abs(float(read_series(run, "risk/train")[0]) - float(exact)) / format_limits(run).eps


@claim(
    "log(softmax) is finite just where the class's exp is not rounded to 0; share of runs",
    source=BLANCHARD,
    why="finite or not is no matter of degree",
    expected=1.0,
    within=0.0,
)
def log_softmax_underflows(runs: Runs) -> Finding:
    """All shifted softmaxes."""
    shifted = runs.with_setting("model.form", "shifted")
    fits = [_logit_gap(run) > smallest_exponent(run) for run in shifted]
    return share_predicted([is_finite(run) == fit for run, fit in zip(shifted, fits, strict=True)])


def _logit_gap(run: RunResult) -> float:
    w = rounded_logits(run)
    return float(w[run.config.model.target] - w.max())


@claim(
    "cross-entropy from logits is always finite; share of runs",
    source=BLANCHARD,
    why="finite or not is no matter of degree",
    expected=1.0,
    within=0.0,
)
def logits_stay_finite(runs: Runs) -> Finding:
    """The same logits that the other two forms were given."""
    return share_predicted([is_finite(run) for run in runs.with_setting("model.form", "logits")])


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw for each format the w whose exponential it has, and those that were asked for.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    # exponents of either sign over three decades
    axes.set_xscale("symlog", linthresh=10)
    for row, name in enumerate(FORMATS):
        _draw_format(axes, row, runs.with_setting("model.format", name))
    axes.set_yticks(range(len(FORMATS)), FORMATS)
    axes.set(xlim=(-3000, 3000), ylim=(len(FORMATS) - 0.4, -0.8), xlabel="w")
    axes.set_xticks(TICKS, [f"{tick}".replace("-", "−") for tick in TICKS])
    axes.grid(axis="y", visible=False)
    axes.set_title("bar: the w whose exponential the format has\n● finite    ✕ not finite")
    axes.text(20, -0.55, "naive softmax", color="C1")
    axes.text(-20, -0.55, "log(softmax)", color="C2", ha="right")


def _draw_format(axes: Axes, row: int, group: Runs) -> None:
    info = format_limits(group[0])
    low, high = smallest_exponent(group[0]), largest_exponent(group[0])
    axes.barh(row, high - low, left=low, height=0.34, color="C0", alpha=0.35)
    ends = f"{info.smallest_normal * info.eps:.1g} … {info.max:.2g}"
    axes.text(0, row + 0.4, ends, ha="center", fontsize="small")
    for run in group:
        form = run.config.model.form
        if form == "logits":
            continue
        x, color, marker = _logit_gap(run), "C2", CROSS
        if form == "naive":
            x, color = float(rounded_logits(run).max()), "C1"
        if is_finite(run):
            marker = DOT
        axes.plot(x, row, color=color, markeredgecolor=axes.get_facecolor(), **marker)
