"""Newton's method takes the same way whatever the variables; gradient descent does not.

With J̃(v) = J(Tv) and v₀ = T⁻¹w₀ all iterates correspond, wₖ = Tvₖ. While ‖∇J‖ ≥ η, in the damped
phase, J falls by at least γ in a step; from ‖∇J‖ < η on steps are of length 1, and ‖∇J‖ is squared
in each.

The constants m, M and L bound the function where it is no higher than at the start, on a fine grid.
They are what makes the bound on the number of steps so loose: from far away it allows millions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from truerisk.reproductions.backtracking import (
    ROWS,
    bound_curvature,
    excess,
    read_path,
    step_lengths,
)
from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exact_finding, read_series, read_setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = (
    "wₖ₊₁ = wₖ − t (∇²J)⁻¹∇J;   ‖∇J‖ ≥ η: J⁺ ≤ J − γ,   ‖∇J‖ < η: L/(2m²) ‖∇J⁺‖ ≤ (L/(2m²) ‖∇J‖)²"
)
SOURCE = "Boyd & Vandenberghe 2004, Convex Optimization, §9.5"
TOPIC = "Descent"
COST = "30 s"
QUICK = [
    "hydra.sweeper.grids=[{model.start:'[-0.3,0.05],[2,-1]'},"
    "{model.change:'[[2,1],[0,4]]',model.start:'[1.125,-0.25]'},"
    "{optimizer:gd_backtracking,model.start:'[2,-1]'},"
    "{optimizer:gd_backtracking,model.change:'[[2,1],[0,4]]',model.start:'[1.125,-0.25]'}]"
]
INVARIANT, CONVERGENCE = "Boyd & Vandenberghe 2004, §9.5.1", "Boyd & Vandenberghe 2004, §9.5.3"

ALPHA, BETA = 1e-4, 0.5
"""Of Newton's line search."""
VISIBLE = 1e-12
"""Below it J − J* and ‖∇J‖ are rounding."""


class Phases(NamedTuple):
    """What the analysis of convergence says of a run, and what it did."""

    eta: float
    """η, of ‖∇J‖, at which the quadratic phase begins"""
    gamma: float
    """γ, by which J falls at least in a step of the damped phase"""
    scale: float
    """L/(2m²)"""
    least: float
    """m"""
    norms: np.ndarray
    """‖∇J‖ before every step [steps]"""
    left: np.ndarray
    """J − J* at the start and after every step [steps + 1]"""


def read_phases(runs: Runs) -> Iterator[tuple[RunResult, Phases]]:
    """Read the runs of Newton's method without a change of variables.

    Args:
        runs: the study's.

    Yields:
        A run, and its phases.
    """
    for run in pick_runs(runs, "newton"):
        m, largest, third = bound_curvature(tuple(map(float, read_setting(run, "model.start"))))
        eta = min(1, 3 * (1 - 2 * ALPHA)) * m**2 / third
        gamma = ALPHA * BETA * eta**2 * m / largest**2
        norms, left = read_series(run, "grad_norm"), excess(run)
        yield run, Phases(eta, gamma, third / (2 * m**2), m, norms, left)


def pick_runs(runs: Runs, optimizer: str, changed: bool = False) -> Runs:
    """Keep the runs of one method with or without a change of variables.

    Args:
        runs: the study's.
        optimizer: the option's name.
        changed: whether with one.
    """
    found = runs.with_setting("choices.optimizer", optimizer)
    return Runs(run for run in found if (read_setting(run, "model.change") is not None) == changed)


def compare_paths(runs: Runs, optimizer: str) -> list[float]:
    """Compare every run that has a change of variables with the one that begins where it does.

    Args:
        runs: the study's.
        optimizer: the option's name.

    Returns:
        For each the largest ‖Tvₖ − wₖ‖ over the steps that both took.
    """
    plain = {tuple(path[0]): path for path in map(read_path, pick_runs(runs, optimizer))}
    deviations = []
    for run in pick_runs(runs, optimizer, changed=True):
        path = read_path(run) @ np.array(read_setting(run, "model.change"), dtype=float).T
        other = plain[tuple(path[0])]
        shared = min(len(path), len(other))
        deviations.append(np.linalg.norm(path[:shared] - other[:shared], axis=1).max())
    return deviations


@claim(
    "Newton's iterates correspond: ‖Tvₖ − wₖ‖, the largest",
    source=INVARIANT,
    why="rounding, times the condition number of T, 64, and of the Hessian in its variables",
    high=1e-9,
)
def newton_corresponds(runs: Runs) -> Finding:
    """Over all steps, starts and changes of variables."""
    return exact_finding(max(compare_paths(runs, "newton")))


@claim(
    "gradient descent's do not: ‖Tvₖ − wₖ‖, the largest of a run",
    source="Boyd & Vandenberghe 2004, §9.4.1",
    why="a tenth of the way that is made, which is more than 1",
    low=0.1,
)
def descent_does_not(runs: Runs) -> Finding:
    """Of the start where they differ least."""
    return exact_finding(min(compare_paths(runs, "gd_backtracking")))


@claim(
    "damped phase: J falls by γ = αβη²m/M² at least, where ‖∇J‖ ≥ η; smallest decrease over γ",
    source=CONVERGENCE,
    why="the bound itself",
    low=1.0,
)
def damped_phase(runs: Runs) -> Finding:
    """Over all steps of the damped phase."""
    ratios = [
        (-np.diff(phases.left) / phases.gamma)[phases.norms >= phases.eta]
        for _, phases in read_phases(runs)
    ]
    return exact_finding(np.concatenate(ratios).min())


@claim(
    "quadratic phase: t = 1 and L/(2m²) ‖∇J⁺‖ over (L/(2m²) ‖∇J‖)², where ‖∇J‖ < η; the largest",
    source=CONVERGENCE,
    why="the bound itself; infinite if a step is of another length",
    high=1.0,
)
def quadratic_phase(runs: Runs) -> Finding:
    """Over all steps of the quadratic phase after which ‖∇J‖ is more than rounding."""
    ratios = [0.0]
    for run, phases in read_phases(runs):
        before, after = phases.norms[:-1], phases.norms[1:]
        seen = (before < phases.eta) & (after > VISIBLE)
        contraction = (after / before**2 / phases.scale)[seen]
        # a length of 1 is read from weights, a bit less exact than they are
        whole = np.abs(step_lengths_of_newton(run)[:-1][seen] - 1) < 1e-3
        ratios += np.where(whole, contraction, np.inf).tolist()
    return exact_finding(max(ratios))


@claim(
    "all steps until J − J* ≤ ε = 10⁻¹⁰, over (J₀ − J*)/γ + log₂ log₂(2m³/(L²ε)); the largest",
    source=CONVERGENCE,
    why="the bound itself",
    high=1.0,
)
def number_of_steps(runs: Runs) -> Finding:
    """Over all starts."""
    ratios, tolerance = [], 1e-10
    for _, phases in read_phases(runs):
        third = 2 * phases.least**2 * phases.scale
        quadratic = np.log2(max(2.0, np.log2(2 * phases.least**3 / third**2 / tolerance)))
        bound = np.ceil(phases.left[0] / phases.gamma * (phases.norms[0] >= phases.eta) + quadratic)
        ratios.append(int(np.argmax(phases.left <= tolerance)) / bound)
    return exact_finding(max(ratios))


def step_lengths_of_newton(run: RunResult) -> np.ndarray:
    """Compute t [steps]: the way made over the length of Newton's direction."""
    path = read_path(run)[:-1]
    terms = np.exp(path @ ROWS.T - 0.1)
    hessians = np.einsum("ni,ij,ik->njk", terms, ROWS, ROWS)
    directions = np.linalg.solve(hessians, (terms @ ROWS)[..., None])[..., 0]
    return step_lengths(run, np.linalg.norm(directions, axis=1))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw both methods' ways in the same variables, and what is left of J − J*.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    names = {"gd_backtracking": "descent", "newton": "Newton"}
    for i, (optimizer, name) in enumerate(names.items()):
        for changed, style in ((False, "o-"), (True, "x--")):
            for run in pick_runs(runs, optimizer, changed):
                change = np.array(read_setting(run, "model.change") or np.eye(2), dtype=float)
                path = read_path(run) @ change.T
                # one start, and one change of variables, are enough to see
                if not (np.allclose(path[0], (2, -1)) and change[1, 1] < 10):
                    continue
                label = f"{name}, in v" if changed else name
                left.plot(*path.T, style, color=f"C{i}", label=label, markersize=5, linewidth=1.2)
    left.set(title="w, and Tv", xlabel="x", ylabel="y", ylim=(-1.7, 0.3))
    left.legend(fontsize="small", loc="lower left")
    for _, phases in read_phases(runs):
        right.semilogy(np.maximum(phases.left, 1e-17), "o-", markersize=4)
    right.set(title="J − J* by Newton's method", xlabel="step", ylim=(1e-16, None))
    right.set_xticks(range(0, 11, 2))
