"""Convexity, conditioning, and the kind of critical point that w is."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.errors import ConfigError
from truerisk.objective.eigenvalues import extreme_eigenvalues
from truerisk.objective.local_objective import LocalObjective, value_and_gradient
from truerisk.objective.operators import HessianOperator, SymmetricOperator


class ConvexityCheck(NamedTuple):
    """Jensen gaps [k] of k segments, and the size up to which one may be rounding."""

    gaps: Tensor
    tolerance: Tensor

    @property
    def violations(self) -> int:
        """Segments above which J bulges: any one proves that J is not convex."""
        return int((self.gaps < -self.tolerance).sum())

    @property
    def convex(self) -> bool:
        """Whether no violation was found: evidence, not a proof."""
        return self.violations == 0


def check_convexity(
    point: LocalObjective, segments: int = 100, radius: float = 1.0, seed: int = 0
) -> ConvexityCheck:
    """Look for segments on which J lies above its chord.

    ``gap = (1 − t) J(a) + t J(b) − J((1 − t) a + t b)``, which Jensen's inequality makes ≥ 0 for a
    convex J, at t uniform in (0, 1) and a, b normal around w, each coordinate with the standard
    deviation ``radius``. A gap is a violation where it is below ``−32 ε (|J(a)| + |J(b)|)``.
    Three evaluations of J a segment.

    Args:
        point: w and the samples.
        segments: how many segments.
        radius: how far around w to look.
        seed: of the segments.
    """
    draw = rng.named_generator(seed, "convexity")
    found = [_jensen_gap(point, radius, draw) for _ in range(segments)]
    gaps, sizes = (torch.stack(part) for part in zip(*found, strict=True))
    return ConvexityCheck(gaps, 32 * torch.finfo(point.w.dtype).eps * sizes)


def _jensen_gap(
    point: LocalObjective, radius: float, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the Jensen gap of one random segment, and |J(a)| + |J(b)|."""
    noise = torch.randn(2, point.space.size, generator=draw, dtype=torch.float64)
    a, b = point.w + radius * noise.to(point.w)
    t = float(torch.rand((), generator=draw, dtype=torch.float64))
    at_a, at_b, between = (point.move_to(w).value() for w in (a, b, torch.lerp(a, b, t)))
    return torch.lerp(at_a, at_b, t) - between, at_a.abs() + at_b.abs()


CONDITION_LIMIT = 1024
"""Sizes up to which all eigenvalues are computed."""


def condition_number(
    a: SymmetricOperator, positive: bool = False, limit: int = CONDITION_LIMIT
) -> float:
    """Return ``κ(A) = |λ|max / |λ|min``, or of the positive spectrum alone, ``λmax / λmin⁺``.

    An eigenvalue counts as 0 where it is within rounding, ``p ε |λ|max``: then κ is infinite, and
    the positive spectrum leaves it out, as it leaves out negative ones (nan if none is positive).
    The second is what gradient descent sees in the directions that J curves up in.

    Up to a size of ``limit`` all eigenvalues are computed. Above, the two ends of the spectrum are,
    and they tell κ where A is definite, or singular at one end.

    Args:
        a: A.
        positive: whether to take the positive spectrum alone.
        limit: size up to which all eigenvalues are computed.

    Raises:
        ConfigError: the answer is an eigenvalue inside the spectrum, of a matrix larger than
            ``limit``: products alone do not tell.

    >>> from truerisk.objective import DenseOperator
    >>> a = DenseOperator(torch.diag(torch.tensor([-0.5, 1.0, 4.0])))
    >>> condition_number(a), condition_number(a, positive=True)
    (8.0, 4.0)
    """
    if a.size <= limit:
        values = torch.linalg.eigvalsh(a.dense())
        return _eigenvalue_ratio(values, a, positive)
    ends = extreme_eigenvalues(a)
    values = torch.cat([ends.smallest.values, ends.largest.values])
    zero = a.size * a.eps * float(values.abs().max())
    definite = bool(values[0] > zero) or bool(values[1] < -zero and not positive)
    singular = bool(values.abs().min() <= zero) and not positive
    if not definite and not singular:
        raise ConfigError(_interior_message(a, values, limit))
    return _eigenvalue_ratio(values, a, positive)


def _eigenvalue_ratio(values: Tensor, a: SymmetricOperator, positive: bool) -> float:
    zero = a.size * a.eps * float(values.abs().max())
    if positive:
        values = values[values > zero]
        if not len(values):
            return math.nan
        return float(values.max() / values.min())
    smallest = float(values.abs().min())
    if not smallest > zero:  # nan too
        return math.inf
    return float(values.abs().max()) / smallest


def _interior_message(a: SymmetricOperator, values: Tensor, limit: int) -> str:
    low, high = values.tolist()
    return (
        f"the spectrum reaches from {low:.3g} to {high:.3g}, so the eigenvalue nearest to 0 lies "
        f"inside it, where products with vectors do not find it; its {a.size} eigenvalues are all "
        f"computed with limit={a.size} (now {limit}), or take the two ends themselves"
    )


PointKind = Literal["minimum", "maximum", "saddle", "degenerate", "not stationary"]

CLASSIFY_LIMIT = 256
"""Sizes up to which all eigenvalues are computed."""


class PointClassification(NamedTuple):
    """The kind of a critical point, with the eigenvalues and tolerances that decide it.

    ``eigenvalues`` are ascending: all of them, or the two ends of the spectrum. Those within
    ``zero`` count as 0, a gradient within ``stationary`` too.
    """

    kind: PointKind
    value: float
    gradient_norm: float
    eigenvalues: Tensor
    stationary: float
    zero: float


def classify_point(
    point: LocalObjective,
    stationary: float | None = None,
    zero: float | None = None,
    limit: int = CLASSIFY_LIMIT,
    eigenvalues: Tensor | None = None,
) -> PointClassification:
    """Tell what kind of point w is, by the second-order conditions.

    * ``not stationary``: ``max |∂J| > stationary``.
    * ``minimum``: all eigenvalues of ∇²J are positive; ``maximum``: all are negative.
    * ``saddle``: there are positive and negative ones.
    * ``degenerate``: none of these; some are 0 and the others do not disagree, so second
      derivatives do not tell (x⁴, a monkey saddle, a valley with a flat floor).

    By default ``stationary = ε^⅓ (1 + |J|)``, as in Gill, Murray & Wright, "Practical Optimization"
    (1981), §8.2.3, and ``zero = √ε max(|λ|max, 1 + |J|)``, with ε the rounding unit of the weights'
    dtype: 6e-6 and 1.5e-8 in float64, 5e-3 and 3.5e-4 in float32, where J and λ are of order 1.

    Args:
        point: w and the samples.
        stationary: largest entry of the gradient that counts as 0.
        zero: largest eigenvalue that counts as 0.
        limit: size up to which all eigenvalues are computed; above, the two ends of the spectrum,
            which tell as much.
        eigenvalues: of ∇²J, ascending, where they are known already; at least the two ends.
    """
    value, gradient = value_and_gradient(point)
    scale = 1 + abs(float(value))
    if eigenvalues is None:
        eigenvalues = _outer_eigenvalues(HessianOperator(point), limit)
    eps = torch.finfo(point.w.dtype).eps
    if stationary is None:
        stationary = eps ** (1 / 3) * scale
    if zero is None:
        zero = eps**0.5 * max(float(eigenvalues.abs().max()), scale)
    steep = bool(gradient.abs().max() > stationary)
    kind: PointKind = "not stationary" if steep else _point_kind(eigenvalues, zero)
    return PointClassification(
        kind, float(value), float(gradient.norm()), eigenvalues, stationary, zero
    )


def _outer_eigenvalues(h: SymmetricOperator, limit: int) -> Tensor:
    if h.size <= limit:
        return torch.linalg.eigvalsh(h.dense())
    ends = extreme_eigenvalues(h)
    return torch.cat([ends.smallest.values, ends.largest.values])


def _point_kind(eigenvalues: Tensor, zero: float) -> PointKind:
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    if low > zero:
        return "minimum"
    if high < -zero:
        return "maximum"
    if low < -zero and high > zero:
        return "saddle"
    return "degenerate"
