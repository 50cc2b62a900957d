"""Through time a gradient shrinks or grows as a power of the recurrent weights' spectral radius.

With orthogonal recurrent weights of scale ρ, ‖∂h_T/∂h_t‖ is ρ^(T−t) where units are linear, below,
at and above 1; and ‖U‖^(T−t) bounds it wherever the states are. Gated cells keep more of it than
plain ones. A gradient clipped by its norm keeps its direction, and its norm is capped.

Units with a sigmoid need no runs of their own: with h = (1 + s)/2, since σ(x) = (1 + tanh(x/2))/2,
their network is one of tanh with the states s, the recurrent weights U/4, and the same ∂h_T/∂h_t.
What is found for tanh at ρ = 0.25 is so for a sigmoid at ρ = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exactly, last_weights, mean, series, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "‖∂h_T/∂h_t‖ = ‖Π Uᵀ diag φ′‖ ≤ (‖U‖ max φ′)^(T−t)"
SOURCE = "Pascanu, Mikolov & Bengio 2013, On the Difficulty of Training Recurrent Neural Networks"
COST = "2 min"
QUICK = [
    "model.width=8",
    "hydra.sweeper.grids=["
    "{initializer.weight.std:1e-9,initializer.recurrent.gain:'0.8,1.0,1.1'},"
    "{initializer.weight.std:0.5,initializer.recurrent.gain:1.3,model.activation:'tanh,relu'},"
    "{model:'rnn,gru',initializer:default,seed:'range(3)'},"
    "{diagnostics:'[]',optimizer.lr:'0.0,1.0',seed:'range(2)'},"
    "{diagnostics:'[]',optimizer.lr:1.0,step.clip.norm:'1e-3,1e3',seed:'range(2)'}]",
]
PASCANU = "Pascanu, Mikolov & Bengio 2013, §2.1"
GAIN = "initializer.recurrent.gain"


def norms(run: RunResult) -> dict[int, np.ndarray]:
    """‖∂h_T/∂h_t‖ at every look, by T − t."""
    prefix = "recurrence/norm/"
    names = {name for name in run.history.name.unique() if name.startswith(prefix)}
    found = {int(name.rpartition("/")[2]): series(run, name) for name in names}
    return dict(sorted(found.items()))


def looked_at(runs: Runs, std: float) -> Runs:
    """The runs with orthogonal weights whose inputs are weighted by so much."""
    return runs.only("initializer.weight.std", std).only("diagnostics.recurrence.samples", 16)


def rate(run: RunResult) -> float:
    """The slope of log‖∂h_T/∂h_t‖ over T − t, of the initial weights; as a factor a step."""
    found = {k: values[0] for k, values in norms(run).items() if k}
    return float(np.exp(np.polyfit(list(found), np.log(list(found.values())), 1)[0]))


@claim(
    "near 0, tanh: the rate over the spectral radius",
    source=PASCANU,
    why="states of 1e-8 bend tanh by 1e-16",
    expected=1.0,
    within=1e-6,
)
def rate_is_the_radius(runs: Runs) -> Finding:
    """The run furthest from 1, of all scales and seeds."""
    ratios = [rate(run) / setting(run, GAIN) for run in looked_at(runs, 1e-9)]
    return exactly(max(ratios, key=lambda ratio: abs(ratio - 1)))


@claim(
    "anywhere, tanh and ReLU: ‖∂h_T/∂h_t‖ over its bound, at most",
    source=PASCANU,
    why="a bound, and rounding in double precision",
    high=1 + 1e-9,
)
def bound_is_kept(runs: Runs) -> Finding:
    """The largest over all runs, looks and T − t."""
    worst = 0.0
    for run in looked_at(runs, 0.5):
        bound = series(run, _named(run, "recurrence/bound/"))
        worst = max(worst, *(float((v / bound**k).max()) for k, v in norms(run).items()))
    return exactly(worst)


def _named(run: RunResult, prefix: str) -> str:
    return next(name for name in run.history.name.unique() if name.startswith(prefix))


@claim(
    "a GRU keeps more than a plain network: log₁₀ of the ratio over the whole sequence",
    source="Hochreiter & Schmidhuber 1997; Cho et al. 2014",
    why="the sign alone",
    low=0.0,
)
def gates_keep_more(runs: Runs) -> Finding:
    """At the initial weights that torch gives; paired by seed."""
    longest = {model: _longest(runs, model) for model in ("gru", "rnn")}
    return mean(np.log10(np.divide(longest["gru"], longest["rnn"])).tolist())


def _longest(runs: Runs, model: str) -> list[float]:
    found = runs.only("choices.initializer", "default").only("choices.model", model)
    return [list(norms(run).values())[-1][0] for run in found]


def steps(runs: Runs) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """For every seed: the free step, one clipped to 10⁻³, one clipped to 10³, and the length."""
    found = []
    for group in runs.only("diagnostics.recurrence", None).by("seed.base").values():
        start = last_weights(group.only("optimizer.lr", 0.0).one)
        moved = group.only("optimizer.lr", 1.0)
        free, tight, loose = (
            last_weights(moved.only("step.clip.norm", norm).one) - start
            for norm in (None, 1e-3, 1e3)
        )
        found.append((free, tight, loose, 1e-3))
    return found


@claim(
    "norm clipping keeps the direction: 1 − cosine of the steps with and without, at most",
    source="Pascanu, Mikolov & Bengio 2013, §3.2",
    why="rounding, of weights 10³ times as large as the clipped step",
    high=1e-9,
)
def direction_is_kept(runs: Runs) -> Finding:
    """Over all seeds."""
    cosines = [f @ t / np.linalg.norm(f) / np.linalg.norm(t) for f, t, _, _ in steps(runs)]
    return exactly(max(1 - float(cosine) for cosine in cosines))


@claim(
    "and caps the norm, at min(‖g‖, c): largest relative deviation",
    source="Pascanu, Mikolov & Bengio 2013, §3.2",
    why="torch adds 1e-6 to the norm that it divides by; rounding of the weights",
    high=1e-4,
)
def norm_is_capped(runs: Runs) -> Finding:
    """Over all seeds, for a cap below and one above the norm of the gradient."""
    worst = 0.0
    for free, tight, loose, cap in steps(runs):
        size = float(np.linalg.norm(free))
        low, high = float(np.linalg.norm(tight)), float(np.linalg.norm(loose))
        worst = max(worst, abs(low / min(size, cap) - 1), abs(high / size - 1))
    return exactly(worst)


def draw(runs: Runs, figure: Figure) -> None:
    """‖∂h_T/∂h_t‖ over T − t: measured points on the lines that are predicted; gated cells."""
    axes = figure.add_subplot()
    axes.set(yscale="log", xlabel="T − t", xlim=(0, 47), ylim=(1e-9, 1e3))
    axes.set_title("‖∂h_T/∂h_t‖: line ρ^(T−t), ● measured")
    for gain, group in looked_at(runs, 1e-9).by(GAIN).items():
        found = {k: values[0] for k, values in norms(group[0]).items()}
        axes.plot(list(found), [gain**k for k in found], color="C0", linewidth=1.2)
        axes.plot(list(found)[::4], list(found.values())[::4], "o", color="C0", markersize=6)
        _name(axes, f"ρ = {gain:g}", {k: gain**k for k in found}, "C0")
    usual = runs.only("choices.initializer", "default").only("diagnostics.recurrence.samples", 16)
    for color, style, model in (("C1", "--", "rnn"), ("C2", "-.", "gru"), ("C3", ":", "lstm")):
        group = usual.only("choices.model", model)
        if len(group):
            found = {k: np.mean([norms(run)[k][0] for run in group]) for k in norms(group[0])}
            axes.plot(list(found), list(found.values()), color=color, linestyle=style)
            _name(axes, model, found, color)


def _name(axes: Axes, text: str, found: Mapping[int, float], color: str) -> None:
    """A line's name at the last of its points that is in the picture."""
    low, high = axes.get_ylim()
    k = max(k for k, value in found.items() if low < value < high)
    axes.text(k + 0.7, found[k], text, color=color, va="center")
