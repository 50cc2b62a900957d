"""How soon methods reach a risk, and how often they are among the fastest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from truerisk.reports.collect import Run
from truerisk.reports.methods import Tuned


class Race(NamedTuple):
    """A target on one problem, and the steps in which each tuned method reached it."""

    target: float
    steps: dict[str, float]
    """median over seeds; infinite where half of the seeds or more did not reach it"""
    reached: dict[str, tuple[int, int]]
    """seeds that reached it, of how many"""


def steps_to(run: Run, target: float) -> float:
    """The optimizer step at which a run's validation risk first was at most ``target``."""
    curve = run.curves.get("risk/val")
    if curve is None:
        return math.inf
    there = np.flatnonzero(curve.value <= target)
    return float(curve.step[there[0]]) if len(there) else math.inf


def race(methods: Sequence[Tuned], target: float | None = None) -> Race | None:
    """How soon each method, as it was tuned, reaches a target.

    Without one it is the lowest risk that every method reaches on more than half of its seeds.
    """
    if not methods:
        return None
    goal = max(map(_reached_by_most, methods)) if target is None else target
    times = {m.name: _times(m.selection.recipe.runs, goal) for m in methods}
    steps = {name: float(np.median(t)) if len(t) else math.inf for name, t in times.items()}
    reached = {name: (int(np.isfinite(t).sum()), len(t)) for name, t in times.items()}
    return Race(goal, steps, reached)


def _reached_by_most(method: Tuned) -> float:
    """The risk that more than half of a method's runs reach, by their curves."""
    runs = method.selection.recipe.runs
    curves = [run.curves["risk/val"].value for run in _ended(runs) if "risk/val" in run.curves]
    risks = sorted(float(np.nanmin(curve)) for curve in curves)
    return risks[len(risks) // 2] if risks else math.inf


def _ended(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status in ("finished", "diverged")]


def _times(runs: Sequence[Run], goal: float) -> np.ndarray:
    return np.array([steps_to(run, goal) for run in _ended(runs)])


def performance_profile(
    times: Sequence[Mapping[str, float]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each method (r, ρ(r)): on which share of problems it takes at most r times the fastest.

    ``ρ(r) = |{p : t(p, s) ≤ r · minₛ t(p, s)}| / |problems|`` (Dolan & Moré 2002; Dahl et al. 2023,
    §4). A method that was not tried on a problem, or did not reach its target, is never within it.

    >>> found = performance_profile([{"a": 10.0, "b": 20.0}, {"a": 30.0, "b": 10.0}])
    >>> found["a"]
    (array([1., 3.]), array([0.5, 1. ]))
    """
    names = dict.fromkeys(name for t in times for name in t)
    fastest = [min(t.values()) for t in times]
    found = {}
    for name in names:
        pairs = zip(times, fastest, strict=True)
        ratios = sorted(t.get(name, math.inf) / best for t, best in pairs if 0 < best < math.inf)
        finite, last = np.unique([r for r in ratios if math.isfinite(r)], return_index=True)
        share = np.append(last[1:], sum(map(math.isfinite, ratios))) / max(len(ratios), 1)
        share = share[: len(finite)]
        if not len(finite) or finite[0] > 1:
            finite, share = np.insert(finite, 0, 1.0), np.insert(share, 0, 0.0)
        found[name] = (finite, share)
    return found
