"""A published claim: what must be measured for it to hold, written down before measuring."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Literal, NamedTuple

from truerisk.verdicts.finding import Finding
from truerisk.verdicts.runs import Runs

Verdict = Literal["holds", "does not hold", "inconclusive"]
Measure = Callable[[Runs], Finding]


class Claim(NamedTuple):
    """What a source says of a number, and the range in which it is taken to be right.

    ``expected`` is the source's number, nan where it gives a bound only; ``why`` says where the
    tolerance comes from.
    """

    says: str
    source: str
    expected: float
    low: float
    high: float
    why: str
    measure: Measure

    def judge(self, finding: Finding) -> Verdict:
        """Compare the range with the finding's 95 % interval.

        The claim holds where the whole interval lies in the range, and does not where they have
        nothing in common. An interval that is not finite decides nothing.

        >>> slope = Claim("", "", 1.0, 0.95, 1.05, "", lambda runs: Finding(1, 1, 1))
        >>> [slope.judge(Finding(x, x - 0.02, x + 0.02)) for x in (1.01, 1.04, 1.2)]
        ['holds', 'inconclusive', 'does not hold']
        """
        if math.isnan(finding.low) or math.isnan(finding.high):
            return "inconclusive"
        if self.low <= finding.low and finding.high <= self.high:
            return "holds"
        apart = finding.high < self.low or self.high < finding.low
        return "does not hold" if apart else "inconclusive"

    @property
    def range(self) -> str:
        """The range in words.

        >>> Claim("", "", 1.0, 0.95, 1.05, "", lambda runs: Finding(1, 1, 1)).range
        '1 ± 0.05'
        """
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        middle = (self.low + self.high) / 2
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

    >>> @claim("a tenth", source="Nobody 1900", why="rounding", expected=0.1, within=1e-9)
    ... def tenth(runs: Runs) -> Finding:
    ...     return Finding(0.1, 0.1, 0.1)
    >>> tenth.says, tenth.judge(tenth.measure(Runs([])))
    ('a tenth', 'holds')
    """
    if within is not None:
        low, high = expected - within, expected + within
    return lambda measure: Claim(says, source, expected, low, high, why, measure)


def claims_of(module: ModuleType) -> dict[str, Claim]:
    """The claims that a module defines, in its order, by name."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Claim)}
