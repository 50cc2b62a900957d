"""Whether the weights are a minimum, a maximum or a saddle of J."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.figure_arrays import keep_arrays, read_arrays
from truerisk.objective import (
    LocalObjective,
    PointClassification,
    PointKind,
    classify_point,
    evaluate_line,
    extreme_eigenvalues,
)
from truerisk.show.style import format_significant

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


ENDS = ("max", "min")
REACH = 0.03
"""How far the curves reach either way, as a share of ‖w‖."""


class CriticalPoint(Diagnostic):
    """Whether the last weights are a minimum, a maximum, a saddle, degenerate or not stationary.

    By the second-order conditions, with the tolerances of `truerisk.objective.classify_point`. The
    kind is printed in a line, and logged as a 1 among 0s beside ``gradient_norm``, ``gradient_max``
    (the largest entry, which decides) and both ends of the spectrum of ∇²J, ``lambda_min`` and
    ``lambda_max``. The figure shows J along their eigenvectors.

    Args:
        every: when to look; only at the end where neither steps nor epochs are set.
        stationary: largest entry of the gradient that counts as 0; None: by the rounding of J.
        zero: largest |λ| that counts as 0; None: by the rounding of J.
        points: of each curve in the figure.
    """

    cost = "heavy"
    on_functions = True

    def __init__(
        self,
        every: Mapping[str, Any] | None = None,
        stationary: float | None = None,
        zero: float | None = None,
        points: int = 41,
    ) -> None:
        super().__init__(every or {})
        self.first = 0 if any(self.every.values()) else math.inf
        for name, value in (("stationary", stationary), ("zero", zero)):
            if value is not None:
                check_float(f"diagnostics.critical_point.{name}", value)
        self.stationary, self.zero = stationary, zero
        self.points = check_int("diagnostics.critical_point.points", points, 3)

    def look(self, snapshot: Snapshot) -> Values:
        """Classify the weights, and keep J along two eigenvectors for the figure."""
        if not snapshot.is_finite:
            return {}
        ends = extreme_eigenvalues(snapshot.hessian)
        values = torch.cat([ends.smallest.values, ends.largest.values])
        point = snapshot.local_objective
        classification = classify_point(point, self.stationary, self.zero, eigenvalues=values)
        self.tell(describe_point(classification, snapshot.step))
        vectors = torch.cat([ends.smallest.vectors, ends.largest.vectors], 1)
        keep_arrays(snapshot, self.name, **evaluate_curves(point, vectors, self.points))
        return collect_values(classification, snapshot.value_and_gradient.gradient)

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the curves that were kept beside the figure."""
        self.curves = read_arrays(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.curves else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw J along the eigenvectors of the largest and the smallest eigenvalue."""
        from truerisk.show.panel import frame_axes, set_plain_ticks
        from truerisk.show.style import BLUE, INK, RUST, SIZE

        last, at = table.iloc[-1], self.curves["at"]
        kind = next(k for k in get_args(PointKind) if last[name_column(k)] == 1)
        panels = figure.subplots(2)
        for axes, values, name in zip(panels, self.curves["values"][::-1], ENDS, strict=True):
            curvature = last[f"lambda_{name}"]
            axes.plot(at, values, color=BLUE, linewidth=2.6)
            model = fit_parabola(at, values, curvature)
            axes.plot(at, model, color=RUST, linestyle="--", linewidth=2.2)
            axes.plot(at[[len(at) // 2]], values[[len(at) // 2]], "o", color=INK, markersize=8)
            # a true minus sign, as matplotlib writes on its axes
            number = format_significant(curvature, 3).replace("-", "−")
            frame_axes(axes, f"J along the eigenvector of λ{name} = {number}")
            set_plain_ticks(axes)
        size = format_significant(last["gradient_norm"], 3)
        below = f"distance (dashed: to second order)\n{kind}, ‖∇J‖ = {size}"
        panels[-1].set_xlabel(below, fontsize=SIZE, color=INK)


def fit_parabola(at: np.ndarray, values: np.ndarray, curvature: float) -> np.ndarray:
    """Evaluate the second-order model of a curve in the middle of it.

    Args:
        at: distances from the middle, evenly spaced [n].
        values: of the curve [n].
        curvature: its second derivative in the middle.

    Returns:
        The parabola's values [n].
    """
    middle = len(at) // 2
    slope = (values[middle + 1] - values[middle - 1]) / (at[middle + 1] - at[middle - 1])
    return values[middle] + slope * at + 0.5 * curvature * at**2


def name_column(kind: str) -> str:
    """Name the column that a kind is logged under."""
    return kind.replace(" ", "_")


def collect_values(classification: PointClassification, gradient: Tensor) -> dict[str, float]:
    """Collect what is logged.

    Args:
        classification: of the weights.
        gradient: of J there, [p].
    """
    eigenvalues = classification.eigenvalues
    return {
        **{name_column(k): float(k == classification.kind) for k in get_args(PointKind)},
        "gradient_norm": classification.gradient_norm,
        "gradient_max": float(gradient.abs().max()),
        "lambda_min": float(eigenvalues.min()),
        "lambda_max": float(eigenvalues.max()),
    }


def describe_point(classification: PointClassification, step: int) -> str:
    """Write the kind of a point and what shows it in a line.

    Args:
        classification: of the weights.
        step: after which they are so.
    """
    norm = format_significant(classification.gradient_norm, 3)
    low = format_significant(float(classification.eigenvalues.min()), 3)
    high = format_significant(float(classification.eigenvalues.max()), 3)
    return f"{classification.kind} at step {step}: ‖∇J‖ = {norm}, λ from {low} to {high}"


def evaluate_curves(point: LocalObjective, vectors: Tensor, count: int) -> dict[str, np.ndarray]:
    """Evaluate J along directions, a little either way.

    Args:
        point: J at some weights.
        vectors: directions of length 1, [p, k].
        count: points of a curve, made odd so that the weights are one of them.

    Returns:
        The distances ``at`` [n], and J there in ``values`` [k, n].
    """
    # in units of the weights; 1 where they are all zero
    reach = REACH * (float(point.w.norm()) or 1.0)
    at = torch.linspace(-reach, reach, count + 1 - count % 2, dtype=torch.float64)
    values = torch.stack([evaluate_line(point, vector, at) for vector in vectors.T])
    return {"at": at.numpy(), "values": values.double().cpu().numpy()}
