"""What the run ended at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics import figure_arrays
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.objective import (
    LocalObjective,
    PointClassification,
    PointKind,
    classify_point,
    evaluate_line,
    extreme_eigenvalues,
)
from truerisk.show.number import format_significant

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
    kind is said in a line, and logged as a 1 among 0s beside ``gradient_norm``, ``gradient_max``
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
        """Tell the kind, and keep the two curves for the figure."""
        if not snapshot.is_finite:
            return {}
        ends = extreme_eigenvalues(snapshot.hessian)
        values = torch.cat([ends.smallest.values, ends.largest.values])
        found = classify_point(snapshot.point, self.stationary, self.zero, eigenvalues=values)
        self.tell(sentence(found, snapshot.step))
        vectors = torch.cat([ends.smallest.vectors, ends.largest.vectors], 1)
        figure_arrays.keep_arrays(
            snapshot, self.name, **curves(snapshot.point, vectors, self.points)
        )
        return numbers(found, snapshot.slope.gradient)

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the curves that were kept beside the figure."""
        self.curves = figure_arrays.read_arrays(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.curves else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """J along the eigenvectors of the largest and the smallest eigenvalue."""
        from truerisk.show.panel import frame_axes, set_plain_ticks
        from truerisk.show.style import BLUE, INK, RUST, SIZE

        last, at = table.iloc[-1], self.curves["at"]
        kind = next(k for k in get_args(PointKind) if last[key(k)] == 1)
        panels = figure.subplots(2)
        for axes, values, name in zip(panels, self.curves["values"][::-1], ENDS, strict=True):
            bend = last[f"lambda_{name}"]
            axes.plot(at, values, color=BLUE, linewidth=2.6)
            model = parabola(at, values, bend)
            axes.plot(at, model, color=RUST, linestyle="--", linewidth=2.2)
            axes.plot(at[[len(at) // 2]], values[[len(at) // 2]], "o", color=INK, markersize=8)
            number = format_significant(bend, 3).replace("-", "−")
            frame_axes(axes, f"J along the eigenvector of λ{name} = {number}")
            set_plain_ticks(axes)
        size = format_significant(last["gradient_norm"], 3)
        below = f"distance (dashed: to second order)\n{kind}, ‖∇J‖ = {size}"
        panels[-1].set_xlabel(below, fontsize=SIZE, color=INK)


def parabola(at: np.ndarray, values: np.ndarray, bend: float) -> np.ndarray:
    """The second-order model of a curve in the middle of it."""
    middle = len(at) // 2
    slope = (values[middle + 1] - values[middle - 1]) / (at[middle + 1] - at[middle - 1])
    return values[middle] + slope * at + 0.5 * bend * at**2


def key(kind: str) -> str:
    """The name that a kind is logged under."""
    return kind.replace(" ", "_")


def numbers(found: PointClassification, gradient: Tensor) -> dict[str, float]:
    """What is logged."""
    return {
        **{key(kind): float(kind == found.kind) for kind in get_args(PointKind)},
        "gradient_norm": found.gradient_norm,
        "gradient_max": float(gradient.abs().max()),
        "lambda_min": float(found.eigenvalues.min()),
        "lambda_max": float(found.eigenvalues.max()),
    }


def sentence(found: PointClassification, step: int) -> str:
    """The kind and what says so, in a line."""
    low, high = float(found.eigenvalues.min()), float(found.eigenvalues.max())
    return (
        f"{found.kind} at step {step}: ‖∇J‖ = {format_significant(found.gradient_norm, 3)}, "
        f"λ from {format_significant(low, 3)} to {format_significant(high, 3)}"
    )


def curves(point: LocalObjective, vectors: Tensor, count: int) -> dict[str, np.ndarray]:
    """J along vectors [p, k], a little either way: ``at`` [n] and ``values`` [k, n]."""
    reach = REACH * (float(point.w.norm()) or 1.0)
    at = torch.linspace(-reach, reach, count + 1 - count % 2, dtype=torch.float64)
    values = torch.stack([evaluate_line(point, vector, at) for vector in vectors.T])
    return {"at": at.numpy(), "values": values.double().cpu().numpy()}
