"""Through time a gradient shrinks or grows as a power of the recurrent weights' spectral radius.

With orthogonal recurrent weights of scale ρ, ‖∂h_T/∂h_t‖ is ρ^(T−t) where units are linear, below
at and above 1. (‖U‖ max φ′)^(T−t) bounds it wherever states are. Sigmoid units are a quarter
as steep, and lose all but a quarter of it in every step. Gated and residual cells keep more of it
than plain ones. A gradient clipped by its norm keeps its direction, and its norm is capped.

Without inputs the states go to a fixed point h* = φ(U h*): 0 for tanh, another for a sigmoid. There
the rate is the spectral radius of diag φ′ · U.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    load_last_weights,
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = (
    "‖∂h_T/∂h_t‖ = ‖Π diag φ′ U‖ ≤ (‖U‖ max φ′)^(T−t);   residual: ‖Π (1 + diag φ′ U)‖, "
    "1 + ‖U‖ max φ′"
)
SOURCE = "Pascanu, Mikolov & Bengio 2013, On the Difficulty of Training Recurrent Neural Networks"
TOPIC = "Depth, recurrence and initialization"
COST = "1 min"
GAIN, STD = "initializer.recurrent.gain", "initializer.weight.std"
QUICK = [
    "model.width=8",
    write_grids(
        {
            **{STD: 1e-9, GAIN: [0.8, 1.0, 1.1], "model.activation": ["tanh", "sigmoid"]},
            "optimizer.lr": 0.0,
        },
        {STD: 0.5, GAIN: 1.3, "model.activation": ["tanh", "sigmoid", "relu"]},
        {
            **{STD: 0.5, GAIN: 1.3, "model.activation": ["tanh", "sigmoid"]},
            "model.residual": True,
        },
        {"initializer": "default", "model.residual": [False, True], "seed": range(3)},
        {"initializer": "default", "model": "gru", "seed": range(3)},
        {"diagnostics": "[]", "optimizer.lr": [0.0, 1.0], "seed": range(2)},
        {
            **{"diagnostics": "[]", "optimizer.lr": 1.0, "step.clip.norm": [1e-3, 1e3]},
            "seed": range(2),
        },
    ),
]
PASCANU = "Pascanu, Mikolov & Bengio 2013, §2.1"


def gradient_norms(run: RunResult) -> dict[int, np.ndarray]:
    """Read ‖∂h_T/∂h_t‖ at every look, by T − t."""
    prefix = "recurrence/norm/"
    names = {name for name in run.history.name.unique() if name.startswith(prefix)}
    by_lag = {int(name.rpartition("/")[2]): read_series(run, name) for name in names}
    return dict(sorted(by_lag.items()))


def runs_without_input(runs: Runs, activation: str) -> Runs:
    """Pick the runs whose inputs hardly count.

    Args:
        runs: the study's.
        activation: of the recurrent cell.
    """
    return runs.with_settings({STD: 1e-9, "model.activation": activation})


def fit_rate(run: RunResult) -> float:
    """Fit the slope of log‖∂h_T/∂h_t‖ over T − t, at the initial weights; as a factor a step."""
    # the first look is at the initial weights; T − t = 0 has the norm 1 by definition
    first = {k: values[0] for k, values in gradient_norms(run).items() if k}
    return float(np.exp(np.polyfit(list(first), np.log(list(first.values())), 1)[0]))


def furthest_from_one(ratios: Iterable[float]) -> Finding:
    """Pick the number furthest from 1."""
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


@claim(
    "tanh near 0: the rate over the spectral radius",
    source=PASCANU,
    why="states of 1e-8 bend tanh by 1e-16",
    expected=1.0,
    within=1e-6,
)
def rate_is_the_radius(runs: Runs) -> Finding:
    """The run furthest from 1, of all scales and seeds."""
    return furthest_from_one(
        fit_rate(run) / read_setting(run, GAIN) for run in runs_without_input(runs, "tanh")
    )


def predict_rate_at_rest(run: RunResult) -> float:
    """Compute the spectral radius of diag σ′ · U at the fixed point h = σ(U h)."""
    weights: Any = run.network.get_parameter("recurrent.weight_hh_l0")
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
    return furthest_from_one(
        fit_rate(run) / predict_rate_at_rest(run) for run in runs_without_input(runs, "sigmoid")
    )


@claim(
    "anywhere, tanh, sigmoid and ReLU, residual cells: ‖∂h_T/∂h_t‖ over its bound, at most",
    source=PASCANU,
    why="a bound, and rounding in double precision",
    high=1 + 1e-9,
)
def bound_is_kept(runs: Runs) -> Finding:
    """The largest over all runs, looks and T − t."""
    return exact_finding(max(ratio for run in runs for ratio in _ratios_to_bound(run)))


def _ratios_to_bound(run: RunResult) -> Iterator[float]:
    """Yield ‖∂h_T/∂h_t‖ over its bound for every T − t, the largest of all looks; none without."""
    for name in run.history.name.unique():
        if name.startswith("recurrence/bound/"):
            # the bound of a step, at every look; over k steps its k-th power
            bound = read_series(run, name)
            yield from (float((v / bound**k).max()) for k, v in gradient_norms(run).items())
            return


KINDS: dict[str, dict[str, Any]] = {
    "tanh": {"choices.model": "rnn", "model.activation": "tanh", "model.residual": False},
    "ReLU": {"choices.model": "rnn", "model.activation": "relu"},
    "residual": {"choices.model": "rnn", "model.residual": True},
    "GRU": {"choices.model": "gru"},
    "LSTM": {"choices.model": "lstm"},
}
"""Cells beside each other, with the weights that torch gives them, by their configuration."""


def runs_of_kind(runs: Runs, kind: str) -> Runs:
    """Pick the runs of one kind of cell, from torch's weights.

    Args:
        runs: the study's.
        kind: a key of ``KINDS``.
    """
    usual = {"choices.initializer": "default", "diagnostics.recurrence.samples": 16}
    return runs.with_settings({**usual, **KINDS[kind]})


def compare_with_tanh(runs: Runs, kind: str) -> Finding:
    """Average log₁₀ of what is left of a gradient at the sequence's start, over tanh's.

    Args:
        runs: the study's.
        kind: a key of ``KINDS``.
    """
    # paired by seed: the same draw of weights in both kinds of cell
    left = {
        k: [list(gradient_norms(run).values())[-1][0] for run in runs_of_kind(runs, k)]
        for k in (kind, "tanh")
    }
    return mean_finding(np.log10(np.divide(left[kind], left["tanh"])).tolist())


@claim(
    "a GRU keeps more than a plain network: log₁₀ of the ratio over the whole sequence",
    source="Hochreiter & Schmidhuber 1997; Cho et al. 2014",
    why="the sign alone",
    low=0.0,
)
def gates_keep_more(runs: Runs) -> Finding:
    """At the initial weights that torch gives; paired by seed."""
    return compare_with_tanh(runs, "GRU")


@claim(
    "so does a residual network: log₁₀ of the ratio",
    source="He, Zhang, Ren & Sun 2016, Identity Mappings in Deep Residual Networks, §2",
    why="the sign alone",
    low=0.0,
)
def residuals_keep_more(runs: Runs) -> Finding:
    """At the same initial weights; paired by seed."""
    return compare_with_tanh(runs, "residual")


def read_steps(runs: Runs) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Read for every seed the free step, one clipped to 10⁻³, one to 10³, and the lower cap."""
    steps = []
    for group in runs.with_setting("diagnostics.recurrence", None).grouped_by("seed.base").values():
        start = load_last_weights(group.with_setting("optimizer.lr", 0.0).only_run)
        moved = group.with_setting("optimizer.lr", 1.0)
        # a step of length 1 is the gradient, so that weights before and after tell it
        free, tight, loose = (
            load_last_weights(moved.with_setting("step.clip.norm", norm).only_run) - start
            for norm in (None, 1e-3, 1e3)
        )
        steps.append((free, tight, loose, 1e-3))
    return steps


@claim(
    "norm clipping keeps the direction: 1 − cosine of the steps with and without, at most",
    source="Pascanu, Mikolov & Bengio 2013, §3.2",
    why="rounding, of weights 10³ times as large as the clipped step",
    high=1e-9,
)
def direction_is_kept(runs: Runs) -> Finding:
    """Over all seeds."""
    cosines = [f @ t / np.linalg.norm(f) / np.linalg.norm(t) for f, t, _, _ in read_steps(runs)]
    return exact_finding(max(1 - float(cosine) for cosine in cosines))


@claim(
    "and caps the norm, at min(‖g‖, c): largest relative deviation",
    source="Pascanu, Mikolov & Bengio 2013, §3.2",
    why="torch adds 1e-6 to the norm that it divides by; rounding of the weights",
    high=1e-4,
)
def norm_is_capped(runs: Runs) -> Finding:
    """Over all seeds, for a cap below and one above the norm of the gradient."""
    worst = 0.0
    for free, tight, loose, cap in read_steps(runs):
        size = float(np.linalg.norm(free))
        low, high = float(np.linalg.norm(tight)), float(np.linalg.norm(loose))
        worst = max(worst, abs(low / min(size, cap) - 1), abs(high / size - 1))
    return exact_finding(worst)


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw ‖∂h_T/∂h_t‖ over T − t: measured points on predicted lines; cells of all kinds.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.set(yscale="log", xlabel="T − t", xlim=(0, 56), ylim=(1e-14, 1e4))
        # names of lines stand between 39 and 56
        axes.set_xticks([0, 10, 20, 30, 39])
    left.set_title("‖∂h_T/∂h_t‖;  ● measured")
    right.set_title("torch's initial weights")
    predictions = {"tanh": ("C0", read_gain), "sigmoid": ("C1", predict_rate_at_rest)}
    for activation, (color, predict) in predictions.items():
        for group in runs_without_input(runs, activation).grouped_by(GAIN).values():
            _draw_prediction(left, group[0], predict(group[0]), color)
    left.text(1, 1e-12, "sigmoid", color="C1")
    left.text(1, 1e2, "tanh", color="C0")
    for i, kind in enumerate(KINDS):
        # the quick study has not every kind
        if len(runs_of_kind(runs, kind)):
            _draw_spread(right, runs_of_kind(runs, kind), kind, f"C{i}")


def read_gain(run: RunResult) -> float:
    """Read ρ, of orthogonal weights."""
    return float(read_setting(run, GAIN))


def _draw_prediction(axes: Axes, run: RunResult, factor: float, color: str) -> None:
    first = {k: values[0] for k, values in gradient_norms(run).items()}
    line = {k: factor**k for k in first}
    axes.plot(list(line), list(line.values()), color=color, linewidth=1.2)
    axes.plot(list(first)[::4], list(first.values())[::4], "o", color=color, markersize=5)
    if factor > 0.5:
        _name_line(axes, f"ρ = {read_gain(run):g}", line, color)


def _draw_spread(axes: Axes, group: Runs, kind: str, color: str) -> None:
    """Draw the geometric mean over seeds, and the band from the least to the most."""
    # norms span decades, so their mean is geometric
    logs = np.array([[np.log(v[0]) for v in gradient_norms(run).values()] for run in group])
    lags, middle = list(gradient_norms(group[0])), np.exp(logs.mean(0))
    axes.fill_between(lags, *np.exp([logs.min(0), logs.max(0)]), color=color, alpha=0.25, lw=0)
    axes.plot(lags, middle, color=color)
    side = {"GRU": "bottom", "LSTM": "top"}.get(kind, "center")  # their lines lie close
    _name_line(axes, kind, dict(zip(lags, middle, strict=True)), color, side)


def _name_line(
    axes: Axes, text: str, points: Mapping[int, float], color: str, side: str = "center"
) -> None:
    """Write a line's name at the last of its points that is in the picture."""
    low, high = axes.get_ylim()
    # beyond the picture's edge a name would stand outside of it
    k = max(k for k, value in points.items() if low < value < high)
    axes.text(k + 0.7, points[k], text, color=color, va=side)
