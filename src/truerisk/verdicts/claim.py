"""A published claim: what must be measured for it to hold, written down before measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Literal, NamedTuple

from truerisk.verdicts.runs import Runs

Verdict = Literal["holds", "does not hold", "inconclusive", "not run with --quick"]


class Finding(NamedTuple):
    """A measured value, and the 95 % interval that it lies in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not measured: the study lacks its runs"
        if self.low == self.high:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def exact_finding(value: float) -> Finding:
    """Record a number in which chance has no part."""
    return Finding(float(value), float(value), float(value))


def mean_finding(values: Sequence[float]) -> Finding:
    """Estimate the mean over independent repetitions, with Student's 95 % interval.

    The interval is not finite where a value is not, or where there are fewer than two.

    >>> mean_finding([1.0, 2.0, 3.0])
    Finding(value=2.0, low=-0.48..., high=4.48...)
    """
    # here, as scipy takes longer to import than completing a name may take
    from truerisk.reports.seed_mean import estimate_mean

    estimate = estimate_mean(values)
    return Finding(estimate.mean, estimate.low, estimate.high)


Measure = Callable[[Runs], Finding]


class Claim(NamedTuple):
    """What a source says of a number, and the range in which it is taken to be right.

    Args:
        says: the claim in words.
        source: who says so, and where.
        expected: the source's number, nan where it gives a bound only.
        low: the lowest number that agrees with the source.
        high: the highest.
        why: where the tolerance comes from.
        measure: takes the number from the runs of a study.
    """

    says: str
    source: str
    expected: float
    low: float
    high: float
    why: str
    measure: Measure

    def judge_finding(self, finding: Finding) -> Verdict:
        """Compare the range with the finding's 95 % interval.

        The claim holds where the whole interval lies in the range, and does not where they have
        nothing in common. An interval that is not finite decides nothing.

        >>> slope = Claim("", "", 1.0, 0.95, 1.05, "", lambda runs: Finding(1, 1, 1))
        >>> [slope.judge_finding(Finding(x, x - 0.02, x + 0.02)) for x in (1.01, 1.04, 1.2)]
        ['holds', 'inconclusive', 'does not hold']
        """
        if math.isnan(finding.low) or math.isnan(finding.high):
            return "inconclusive"
        if self.low <= finding.low and finding.high <= self.high:
            return "holds"
        if finding.high < self.low or self.high < finding.low:
            return "does not hold"
        return "inconclusive"

    @property
    def range_in_words(self) -> str:
        """The range, as it is printed.

        >>> Claim("", "", 1.0, 0.95, 1.05, "", lambda runs: Finding(1, 1, 1)).range_in_words
        '1 ± 0.05'
        """
        # a claim has one bound at least, so that not both are infinite
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        middle = (self.low + self.high) / 2
        # a range around the source's own number is told by its half-width
        if math.isclose(middle, self.expected):
            return f"{self.expected:.4g} ± {self.high - middle:.2g}"
        return f"{self.low:.4g} to {self.high:.4g}"


def claim(
    says: str,
    *,
    source: str,
    why: str,
    expected: float = math.nan,
    within: float | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Callable[[Measure], Claim]:
    """Turn a function of a study's runs into the claim that it measures.

    The range is ``expected ± within``, or [low, high].

    Args:
        says: the claim in words.
        source: who says so, and where.
        why: where the tolerance comes from.
        expected: the source's number, where it gives one.
        within: how far from it still agrees.
        low: the lowest number that agrees, where ``within`` is not given.
        high: the highest.

    >>> @claim("a tenth", source="Nobody 1900", why="rounding", expected=0.1, within=1e-9)
    ... def tenth(runs: Runs) -> Finding:
    ...     return Finding(0.1, 0.1, 0.1)
    >>> tenth.says, tenth.judge_finding(tenth.measure(Runs([])))
    ('a tenth', 'holds')
    """
    if within is not None:
        low, high = expected - within, expected + within
    return lambda measure: Claim(says, source, expected, low, high, why, measure)


def list_claims(module: ModuleType) -> dict[str, Claim]:
    """List the claims that a module defines, in its order, by name."""
    # a module's names keep the order of their definition
    return {name: value for name, value in vars(module).items() if isinstance(value, Claim)}
