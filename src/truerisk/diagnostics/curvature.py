"""How J curves, and whether the step length goes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.stability import Stability, stability
from truerisk.objective import (
    DenseOperator,
    ExtremeEigenpairs,
    LocalObjective,
    ScaledOperator,
    SymmetricOperator,
    condition_number,
    extreme_eigenvalues,
    hutchinson_trace,
    largest_eigenvalues,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class Curvature(Diagnostic):
    """The ends of the Hessian's spectrum, its trace and condition number, and the stability limit.

    ``lambda_max``, ``lambda_min``, ``trace`` (with ``trace/stderr`` where it is estimated) and
    ``condition`` (|λ|max/|λ|min) are those of ∇²J at the weights. The condition number is left out
    where products with vectors do not tell it: with more than 256 weights, unless J is convex or
    concave there.

    ``stability`` is the sharpness times the step length, λmax of ``S^½ (∇²J + C) S^½``, and
    ``threshold`` the value above which steps of the method on a quadratic grow instead of shrink:
    2 for gradient descent, see `truerisk.diagnostics.stability`. They are left out for methods
    whose threshold is not known.

    Args:
        every: when to look; see `Diagnostic`.
        probes: random vectors for the trace.
        tolerance: of eigenvalues, relative to |λ|max.
    """

    cost = "heavy"
    on_functions = True

    def __init__(
        self, every: Mapping[str, Any] | None = None, probes: int = 16, tolerance: float = 1e-3
    ) -> None:
        super().__init__(every)
        self.probes = check_int("diagnostics.curvature.probes", probes, 2)
        self.tolerance = check_float("diagnostics.curvature.tolerance", tolerance, 0, 1, above=True)

    def look(self, snapshot: Snapshot) -> Values:
        """Eigenvalues, trace, condition number, stability."""
        if not snapshot.is_finite:
            return {}
        h = snapshot.hessian
        ends = extreme_eigenvalues(h, tol=self.tolerance)
        found = {
            "lambda_max": float(ends.largest.values),
            "lambda_min": float(ends.smallest.values),
            **trace(h, self.probes),
        }
        told = condition(h, ends)
        if not math.isnan(told):
            found["condition"] = told
        return found | self._stability(snapshot, h, ends)

    def _stability(
        self, snapshot: Snapshot, h: SymmetricOperator, ends: ExtremeEigenpairs
    ) -> dict[str, float]:
        optimizer = snapshot.run.optimizer
        known = stability(optimizer, snapshot.params)
        if known is None:
            if snapshot.step:
                name = type(optimizer).__name__
                self.warn(f"no stability threshold is known for {name}; none is shown")
            return {}
        return {
            "stability": sharpness(known, snapshot.point, h, ends, self.tolerance),
            "threshold": known.threshold,
        }

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Both ends of the spectrum and the trace, and sharpness × step length below."""
        from truerisk.diagnostics.history_plots import add_panels, draw_lines

        shown: dict[str, dict[str, pd.Series]] = {
            "curvature of J": {
                "trace": table["trace"],
                "λmax": table["lambda_max"],
                "−λmin": -table["lambda_min"],
            }
        }
        if "stability" in table:
            limit = {"reached": table["stability"], "limit": table["threshold"]}
            shown["sharpness × step length"] = limit
        if "condition" in table:
            shown["condition number"] = {"": table["condition"]}
        drawn = add_panels(figure, table, list(shown), (2.2, 1.5, 1.2))
        for panel, named in zip(drawn, shown.values(), strict=True):
            draw_lines(panel, {name: values.where(values > 0) for name, values in named.items()})
        if "stability" not in table:
            drawn[-1].set_xlabel("step (no stability threshold is known for this optimizer)")


def trace(h: SymmetricOperator, probes: int) -> dict[str, float]:
    """The trace: exact, or estimated with its standard error."""
    if isinstance(h, DenseOperator):
        return {"trace": float(h.matrix.trace())}
    found = hutchinson_trace(h, probes)
    return {"trace": float(found.value), "trace/stderr": float(found.stderr)}


def condition(h: SymmetricOperator, ends: ExtremeEigenpairs) -> float:
    """|λ|max/|λ|min; nan where products with vectors do not tell it."""
    if isinstance(h, DenseOperator):
        return condition_number(h)
    low, high = (float(pairs.values) for pairs in ends)
    error = max(float(pairs.errors) for pairs in ends)
    if low > error or high < -error:
        return max(abs(low), abs(high)) / min(abs(low), abs(high))
    return math.nan


def sharpness(
    known: Stability,
    point: LocalObjective,
    h: SymmetricOperator,
    ends: ExtremeEigenpairs,
    tolerance: float,
) -> float:
    """λmax of S^½ (H + C) S^½; no new eigenvalue is sought where S and C are multiples of I."""
    scale, shift = point.space.flat(known.scale), point.space.flat(known.shift)
    if uniform(scale) and uniform(shift):
        return float(scale[0] * (ends.largest.values[0] + shift[0]))
    return float(largest_eigenvalues(ScaledOperator(h, scale, shift), tol=tolerance).values)


def uniform(values: Tensor) -> bool:
    """Whether all entries are equal."""
    return bool((values == values[0]).all())
