"""What the run ended at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from truerisk.calculus import CriticalPoint as Found
from truerisk.calculus import Point, classify, extreme_eigenvalues, line
from truerisk.calculus.critical_point import Kind
from truerisk.diagnostics import arrays
from truerisk.diagnostics.curvature import hessian
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.number import real, whole
from truerisk.show.number import significant

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.moment import Moment


class CriticalPoint(Diagnostic):
    """Whether the last weights are a minimum, a maximum, a saddle, degenerate or not stationary.

    By the second-order conditions, with the tolerances of `truerisk.calculus.classify`. The kind is
    said in a line, and logged as a 1 among 0s beside ``gradient_norm``, ``gradient_max`` (the
    largest entry, which decides) and both ends of the spectrum of ∇²J, ``lambda_min`` and
    ``lambda_max``. The figure shows J along their eigenvectors.

    Args:
        stationary: largest entry of the gradient that counts as 0; None: by the rounding of J.
        zero: largest |λ| that counts as 0; None: by the rounding of J.
        points: of each curve in the figure.
    """

    cost = "heavy"
    first = math.inf
    on_functions = True

    def __init__(
        self, stationary: float | None = None, zero: float | None = None, points: int = 41
    ) -> None:
        super().__init__({})
        for name, value in (("stationary", stationary), ("zero", zero)):
            if value is not None:
                real(f"diagnostics.critical_point.{name}", value)
        self.stationary, self.zero = stationary, zero
        self.points = whole("diagnostics.critical_point.points", points, 3)

    def look(self, moment: Moment) -> Values:
        """Tell the kind, and keep the two curves for the figure."""
        ends = extreme_eigenvalues(hessian(moment.point))
        values = torch.cat([ends.smallest.values, ends.largest.values])
        found = classify(moment.point, self.stationary, self.zero, eigenvalues=values)
        self.tell(sentence(found, moment.step))
        vectors = torch.cat([ends.smallest.vectors, ends.largest.vectors], 1)
        arrays.keep(moment, self.name, **curves(moment.point, vectors, self.points))
        return numbers(found, moment.slope.gradient)

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the curves that were kept beside the figure."""
        self.curves = arrays.load(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.curves else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """J along the eigenvectors of the largest and the smallest eigenvalue."""
        from truerisk.show.figure import INK, SIZE, frame, label_ends, plain_ticks

        last = table.iloc[-1]
        kind = next(k for k in get_args(Kind) if last[key(k)] == 1)
        axes = figure.subplots()
        frame(axes, f"{kind}, ‖∇J‖ = {significant(last['gradient_norm'], 3)}")
        at, ends = self.curves["at"], []
        looks = zip(("lambda_min", "lambda_max"), ("#e08a1e", "#0b4f8a"), ("--", "-"), strict=True)
        for values, (name, color, dashes) in zip(self.curves["values"], looks, strict=True):
            axes.plot(at, values, color=color, linestyle=dashes, linewidth=2.6)
            label = "λmin" if name == "lambda_min" else "λmax"
            number = significant(last[name], 3).replace("-", "−")
            ends.append((float(values[-1]), f"{label}\n{number}", color))
        axes.plot([0], [self.curves["values"][0][len(at) // 2]], "o", color=INK, markersize=8)
        axes.set_xlabel("distance along the eigenvector of …", fontsize=SIZE, color=INK)
        axes.set_ylabel("J", fontsize=SIZE, color=INK, rotation=0, labelpad=12)
        plain_ticks(axes)
        label_ends(axes, ends)


def key(kind: str) -> str:
    """The name that a kind is logged under."""
    return kind.replace(" ", "_")


def numbers(found: Found, gradient: Tensor) -> dict[str, float]:
    """What is logged."""
    return {
        **{key(kind): float(kind == found.kind) for kind in get_args(Kind)},
        "gradient_norm": found.gradient_norm,
        "gradient_max": float(gradient.abs().max()),
        "lambda_min": float(found.eigenvalues.min()),
        "lambda_max": float(found.eigenvalues.max()),
    }


def sentence(found: Found, step: int) -> str:
    """The kind and what says so, in a line."""
    low, high = float(found.eigenvalues.min()), float(found.eigenvalues.max())
    return (
        f"{found.kind} at step {step}: ‖∇J‖ = {significant(found.gradient_norm, 3)}, "
        f"λ from {significant(low, 3)} to {significant(high, 3)}"
    )


def curves(point: Point, vectors: Tensor, count: int) -> dict[str, np.ndarray]:
    """J along vectors [p, k], a tenth of ‖w‖ either way: ``at`` [n] and ``values`` [k, n]."""
    reach = 0.1 * (float(point.w.norm()) or 1.0)
    at = torch.linspace(-reach, reach, count + 1 - count % 2, dtype=torch.float64)
    values = torch.stack([line(point, vector, at) for vector in vectors.T])
    return {"at": at.numpy(), "values": values.double().cpu().numpy()}
