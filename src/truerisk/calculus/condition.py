"""The condition number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truerisk.calculus.eigenvalues import extreme_eigenvalues
from truerisk.calculus.operator import Operator
from truerisk.core.errors import ConfigError

WRITTEN_OUT = 1024
"""Sizes up to which all eigenvalues are computed."""


def condition_number(a: Operator, positive: bool = False, limit: int = WRITTEN_OUT) -> float:
    """``κ(A) = |λ|max / |λ|min``, or of the positive spectrum alone, ``λmax / λmin⁺``.

    An eigenvalue counts as 0 where it is within rounding, ``p ε |λ|max``: then κ is infinite, and
    the positive spectrum leaves it out, as it leaves out negative ones (nan if none is positive).
    The second is what gradient descent sees in the directions that J curves up in.

    Up to a size of ``limit`` all eigenvalues are computed. Above, the two ends of the spectrum are,
    and they tell κ where A is definite, or singular at one end.

    Raises:
        ConfigError: the answer is an eigenvalue inside the spectrum, of a matrix larger than
            ``limit``: products alone do not tell.

    >>> from truerisk.calculus.operator import Matrix
    >>> a = Matrix(torch.diag(torch.tensor([-0.5, 1.0, 4.0])))
    >>> condition_number(a), condition_number(a, positive=True)
    (8.0, 4.0)
    """
    if a.size <= limit:
        values = torch.linalg.eigvalsh(a.dense())
        return _ratio(values, a, positive)
    ends = extreme_eigenvalues(a)
    values = torch.cat([ends.smallest.values, ends.largest.values])
    zero = a.size * a.eps * float(values.abs().max())
    definite = bool(values[0] > zero) or bool(values[1] < -zero and not positive)
    singular = bool(values.abs().min() <= zero) and not positive
    if not definite and not singular:
        raise ConfigError(_interior(a, values, limit))
    return _ratio(values, a, positive)


def _ratio(values: Tensor, a: Operator, positive: bool) -> float:
    zero = a.size * a.eps * float(values.abs().max())
    if positive:
        values = values[values > zero]
        return float(values.max() / values.min()) if len(values) else math.nan
    smallest = float(values.abs().min())
    return float(values.abs().max()) / smallest if smallest > zero else math.inf


def _interior(a: Operator, values: Tensor, limit: int) -> str:
    low, high = values.tolist()
    return (
        f"the spectrum reaches from {low:.3g} to {high:.3g}, so the eigenvalue nearest to 0 lies "
        f"inside it, where products with vectors do not find it; its {a.size} eigenvalues are all "
        f"computed with limit={a.size} (now {limit}), or take the two ends themselves"
    )
