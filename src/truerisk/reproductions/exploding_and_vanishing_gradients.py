"""Through time a gradient shrinks or grows as a power of the recurrent weights' spectral radius.

With orthogonal recurrent weights of scale ρ, ‖∂h_T/∂h_t‖ is ρ^(T−t) where units are linear, below
at and above 1. (‖U‖ max φ′)^(T−t) bounds it wherever states are. Sigmoid units are a quarter
as steep, and lose all but a quarter of it in every step. Gated and residual cells keep more of it
than plain ones. A gradient clipped by its norm keeps its direction, and its norm is capped.

Without inputs the states go to a fixed point h* = φ(U h*): 0 for tanh, another for a sigmoid. There
the rate is the spectral radius of diag φ′ · U.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exactly, last_weights, mean, series, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = (
    "‖∂h_T/∂h_t‖ = ‖Π diag φ′ U‖ ≤ (‖U‖ max φ′)^(T−t);   residual: ‖Π (1 + diag φ′ U)‖, "
    "1 + ‖U‖ max φ′"
)
SOURCE = "Pascanu, Mikolov & Bengio 2013, On the Difficulty of Training Recurrent Neural Networks"
COST = "1 min"
QUICK = [
    "model.width=8",
    "hydra.sweeper.grids=["
    "{initializer.weight.std:1e-9,initializer.recurrent.gain:'0.8,1.0,1.1',"
    "model.activation:'tanh,sigmoid',optimizer.lr:0.0},"
    "{initializer.weight.std:0.5,initializer.recurrent.gain:1.3,"
    "model.activation:'tanh,sigmoid,relu'},"
    "{initializer.weight.std:0.5,initializer.recurrent.gain:1.3,"
    "model.activation:'tanh,sigmoid',model.residual:true},"
    "{initializer:default,model.residual:'false,true',seed:'range(3)'},"
    "{initializer:default,model:gru,seed:'range(3)'},"
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


def driven_by_itself(runs: Runs, activation: str) -> Runs:
    """The runs whose inputs hardly count."""
    return runs.only("initializer.weight.std", 1e-9).only("model.activation", activation)


def rate(run: RunResult) -> float:
    """The slope of log‖∂h_T/∂h_t‖ over T − t, of the initial weights; as a factor a step."""
    found = {k: values[0] for k, values in norms(run).items() if k}
    return float(np.exp(np.polyfit(list(found), np.log(list(found.values())), 1)[0]))


def furthest(ratios: Iterable[float]) -> Finding:
    """The one furthest from 1."""
    return exactly(max(ratios, key=lambda ratio: abs(ratio - 1)))


@claim(
    "tanh near 0: the rate over the spectral radius",
    source=PASCANU,
    why="states of 1e-8 bend tanh by 1e-16",
    expected=1.0,
    within=1e-6,
)
def rate_is_the_radius(runs: Runs) -> Finding:
    """The run furthest from 1, of all scales and seeds."""
    return furthest(rate(run) / setting(run, GAIN) for run in driven_by_itself(runs, "tanh"))


def rate_at_rest(run: RunResult) -> float:
    """The spectral radius of diag σ′ · U at the fixed point h = σ(U h)."""
    weights: Any = run.model.get_parameter("recurrent.weight_hh_l0")
    u = weights.detach().double().numpy()
    h = np.zeros(len(u))
    for _ in range(100):  # a contraction, by 1/4 of ‖U‖
        h = 1 / (1 + np.exp(-u @ h))
    return float(np.abs(np.linalg.eigvals((h * (1 - h))[:, None] * u)).max())


@claim(
    "sigmoid at rest: the rate over the spectral radius of diag φ′ · U",
    source=PASCANU,
    why="‖Mᵏ‖ lies between ρᵏ and κρᵏ; κ is near 1 where M is near orthogonal, and k goes up to 39",
    expected=1.0,
    within=0.01,
)
def rate_of_sigmoids(runs: Runs) -> Finding:
    """The run furthest from 1, of all scales and seeds."""
    return furthest(rate(run) / rate_at_rest(run) for run in driven_by_itself(runs, "sigmoid"))


@claim(
    "anywhere, tanh, sigmoid and ReLU, residual cells: ‖∂h_T/∂h_t‖ over its bound, at most",
    source=PASCANU,
    why="a bound, and rounding in double precision",
    high=1 + 1e-9,
)
def bound_is_kept(runs: Runs) -> Finding:
    """The largest over all runs, looks and T − t."""
    return exactly(max(_over_bound(run) for run in runs if _bound_of(run) is not None))


def _bound_of(run: RunResult) -> str | None:
    names = (name for name in run.history.name.unique() if name.startswith("recurrence/bound/"))
    return next(names, None)


def _over_bound(run: RunResult) -> float:
    bound = series(run, _bound_of(run) or "")
    return max(float((values / bound**k).max()) for k, values in norms(run).items())


KINDS: dict[str, dict[str, Any]] = {
    "tanh": {"choices.model": "rnn", "model.activation": "tanh", "model.residual": False},
    "ReLU": {"choices.model": "rnn", "model.activation": "relu"},
    "residual": {"choices.model": "rnn", "model.residual": True},
    "GRU": {"choices.model": "gru"},
    "LSTM": {"choices.model": "lstm"},
}
"""Cells beside each other, with the weights that torch gives them, by their configuration."""


def usual(runs: Runs, kind: str) -> Runs:
    """The runs of one kind of cell from torch's weights."""
    found = runs.only("choices.initializer", "default").only("diagnostics.recurrence.samples", 16)
    for key, value in KINDS[kind].items():
        found = found.only(key, value)
    return found


def kept_more(runs: Runs, kind: str) -> Finding:
    """log₁₀ of what is left of a gradient at the start of the sequence, over a tanh network's."""
    left = {k: [list(norms(run).values())[-1][0] for run in usual(runs, k)] for k in (kind, "tanh")}
    return mean(np.log10(np.divide(left[kind], left["tanh"])).tolist())


@claim(
    "a GRU keeps more than a plain network: log₁₀ of the ratio over the whole sequence",
    source="Hochreiter & Schmidhuber 1997; Cho et al. 2014",
    why="the sign alone",
    low=0.0,
)
def gates_keep_more(runs: Runs) -> Finding:
    """At the initial weights that torch gives; paired by seed."""
    return kept_more(runs, "GRU")


@claim(
    "so does a residual network: log₁₀ of the ratio",
    source="He, Zhang, Ren & Sun 2016, Identity Mappings in Deep Residual Networks, §2",
    why="the sign alone",
    low=0.0,
)
def residuals_keep_more(runs: Runs) -> Finding:
    """At the same initial weights; paired by seed."""
    return kept_more(runs, "residual")


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
    """‖∂h_T/∂h_t‖ over T − t: measured points on predicted lines; cells of all kinds."""
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.set(yscale="log", xlabel="T − t", xlim=(0, 56), ylim=(1e-14, 1e4))
        axes.set_xticks([0, 10, 20, 30, 39])
    left.set_title("‖∂h_T/∂h_t‖;  ● measured")
    right.set_title("torch's initial weights")
    for activation, color, predicted in (("tanh", "C0", gain), ("sigmoid", "C1", rate_at_rest)):
        for group in driven_by_itself(runs, activation).by(GAIN).values():
            _predicted(left, group[0], predicted(group[0]), color)
    left.text(1, 1e-12, "sigmoid", color="C1")
    left.text(1, 1e2, "tanh", color="C0")
    for i, kind in enumerate(KINDS):
        if len(usual(runs, kind)):
            _spread(right, usual(runs, kind), kind, f"C{i}")


def gain(run: RunResult) -> float:
    """ρ, of orthogonal weights."""
    return float(setting(run, GAIN))


def _predicted(axes: Axes, run: RunResult, factor: float, color: str) -> None:
    found = {k: values[0] for k, values in norms(run).items()}
    line = {k: factor**k for k in found}
    axes.plot(list(line), list(line.values()), color=color, linewidth=1.2)
    axes.plot(list(found)[::4], list(found.values())[::4], "o", color=color, markersize=5)
    if factor > 0.5:
        _name(axes, f"ρ = {gain(run):g}", line, color)


def _spread(axes: Axes, group: Runs, kind: str, color: str) -> None:
    """The geometric mean over seeds, and the band from the least to the most."""
    logs = np.array([[np.log(v[0]) for v in norms(run).values()] for run in group])
    lags, middle = list(norms(group[0])), np.exp(logs.mean(0))
    axes.fill_between(lags, *np.exp([logs.min(0), logs.max(0)]), color=color, alpha=0.25, lw=0)
    axes.plot(lags, middle, color=color)
    side = {"GRU": "bottom", "LSTM": "top"}.get(kind, "center")  # their lines lie close
    _name(axes, kind, dict(zip(lags, middle, strict=True)), color, side)


def _name(
    axes: Axes, text: str, found: Mapping[int, float], color: str, side: str = "center"
) -> None:
    """A line's name at the last of its points that is in the picture."""
    low, high = axes.get_ylim()
    k = max(k for k, value in found.items() if low < value < high)
    axes.text(k + 0.7, found[k], text, color=color, va=side)
