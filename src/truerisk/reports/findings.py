"""All that is found out about one problem."""

from __future__ import annotations

from dataclasses import dataclass

from truerisk.reports.compare import Comparison
from truerisk.reports.methods import Tuned, contest, tuned
from truerisk.reports.pairs import comparisons
from truerisk.reports.selection import Selection, select
from truerisk.reports.study import Problem
from truerisk.reports.target import Race, race

JUDGED = ("risk/test", "risk/true", "error/test", "error/true", "risk/val")
"""The metrics by which recipes are compared; validation risk only where there is no other."""


@dataclass
class Findings:
    """A problem, what was selected on it, how its recipes and methods compare, who was fastest."""

    problem: Problem
    selection: Selection | None
    comparisons: dict[str, list[Comparison]]
    methods: list[Tuned]
    contest: list[Comparison]
    race: Race | None


def findings(
    problem: Problem, baseline: str | None = None, target: float | None = None
) -> Findings:
    """Select, compare, tune and time.

    Raises:
        ConfigError: there is no recipe called ``baseline``.
    """
    selection = select(problem)
    chosen = selection.recipe if selection else None
    judged = [m for m in JUDGED if m in problem.metrics]
    judged = judged[:-1] if len(judged) > 1 and judged[-1] == "risk/val" else judged
    compared = {m: comparisons(problem, m, chosen, baseline) for m in judged}
    methods = tuned(problem)
    return Findings(problem, selection, compared, methods, contest(methods), race(methods, target))
