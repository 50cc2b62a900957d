"""How J curves and rises around the weights, and how long a step may be there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.stability import StabilityLimit, find_stability_limit
from truerisk.objective import (
    DenseOperator,
    ExtremeEigenpairs,
    HessianOperator,
    LocalObjective,
    ScaledOperator,
    SymmetricOperator,
    ball_sharpness,
    box_sharpness,
    condition_number,
    extreme_eigenvalues,
    hutchinson_trace,
    largest_eigenvalues,
)
from truerisk.objective.eigenvalues import student_reach

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
        training_mode: whether J is as training sees it, with batch norm by the batch (of up to 1000
            samples) and dropout's masks; as it is measured, in eval mode, if not.
    """

    cost = "heavy"
    on_functions = True

    def __init__(
        self,
        every: Mapping[str, Any] | None = None,
        probes: int = 16,
        tolerance: float = 1e-3,
        training_mode: bool = False,
    ) -> None:
        super().__init__(every)
        self.training_mode = training_mode
        self.probes = check_int("diagnostics.curvature.probes", probes, 2)
        self.tolerance = check_float("diagnostics.curvature.tolerance", tolerance, 0, 1, above=True)

    def look(self, snapshot: Snapshot) -> Values:
        """Measure eigenvalues, trace, condition number and stability."""
        if self.training_mode:
            with snapshot.in_training_mode() as trained:
                return self._measure(trained)
        return self._measure(snapshot)

    def _measure(self, snapshot: Snapshot) -> Values:
        if not snapshot.is_finite:
            return {}
        h = snapshot.hessian
        ends = extreme_eigenvalues(h, tol=self.tolerance)
        values = {
            "lambda_max": float(ends.largest.values),
            "lambda_min": float(ends.smallest.values),
            **measure_trace(h, self.probes),
        }
        condition = measure_condition(h, ends)
        if not math.isnan(condition):
            values["condition"] = condition
        return values | self._measure_stability(snapshot, h, ends)

    def _measure_stability(
        self, snapshot: Snapshot, h: SymmetricOperator, ends: ExtremeEigenpairs
    ) -> dict[str, float]:
        """Measure sharpness × step length, beside its threshold; nothing where none is known."""
        optimizer = snapshot.run.optimizer
        limit = find_stability_limit(optimizer, snapshot.params)
        if limit is None:
            if snapshot.step:  # before the first step, an adaptive method has no step length
                name = type(optimizer).__name__
                self.warn(f"no stability threshold is known for {name}; none is shown")
            return {}
        sharpness = scaled_sharpness(limit, snapshot.local_objective, h, ends, self.tolerance)
        return {"stability": sharpness, "threshold": limit.threshold}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw both ends of the spectrum and the trace, and sharpness × step length below."""
        from truerisk.diagnostics.history_plots import add_panels, draw_band, draw_lines

        curves: dict[str, dict[str, pd.Series]] = {
            "curvature of J": {
                "trace": table["trace"],
                "λmax": table["lambda_max"],
                "−λmin": -table["lambda_min"],
            }
        }
        if "stability" in table:
            limit = {"reached": table["stability"], "limit": table["threshold"]}
            curves["sharpness × step length"] = limit
        if "condition" in table:
            curves["condition number"] = {"": table["condition"]}
        panels = add_panels(figure, table, list(curves), (2.2, 1.5, 1.2))
        draw_band(panels[0], *trace_interval(table, self.probes))
        for panel, named in zip(panels, curves.values(), strict=True):
            draw_lines(panel, {name: values.where(values > 0) for name, values in named.items()})
        if "stability" not in table:
            panels[-1].set_xlabel("step (no stability threshold is known for this optimizer)")


class Flatness(Diagnostic):
    """Three measures of how much J rises around w.

    * ``box``: ``100 (max J(w + y) − J(w)) / (1 + J(w))`` over ``|yᵢ| ≤ ε(|wᵢ| + 1)``, in percent:
      the ε-sharpness of Keskar et al. (ICLR 2017), metric 2.1, by some iterations of L-BFGS-B.
    * ``sam``: ``J(w + ρ g/‖g‖) − J(w)``, to first order the most J rises at a distance of ρ (Foret
      et al., ICLR 2021).
    * ``trace``: of ∇²J; for noise of variance σ² on every weight, J rises by ½σ² tr ∇²J on average.

    None of them is invariant to how a network's layers are scaled (Dinh et al., ICML 2017): with
    ``rescale``, ``rescaled/box``, ``/sam`` and ``/trace`` are those of the same weights but for the
    first layer's, times α, and the second's, over α. With ReLU between them it is the same
    function; ``rescaled/change`` is the largest change of an output, over the largest output.

    Args:
        every: when to look; see `Diagnostic`.
        epsilon: ε.
        iterations: of L-BFGS-B.
        rho: ρ.
        probes: random vectors for the trace.
        rescale: α; None to leave that out.
    """

    cost = "moderate"
    on_functions = True

    def __init__(
        self,
        every: Mapping[str, Any] | None = None,
        epsilon: float = 1e-3,
        iterations: int = 10,
        rho: float = 0.05,
        probes: int = 16,
        rescale: float | None = None,
    ) -> None:
        super().__init__(every)
        self.rescale = None
        if rescale is not None:
            self.rescale = check_float("diagnostics.flatness.rescale", rescale, 0, above=True)
        self.epsilon = check_float("diagnostics.flatness.epsilon", epsilon, 0, above=True)
        self.iterations = check_int("diagnostics.flatness.iterations", iterations)
        self.rho = check_float("diagnostics.flatness.rho", rho, 0, above=True)
        self.probes = check_int("diagnostics.flatness.probes", probes, 2)

    def look(self, snapshot: Snapshot) -> Values:
        """Measure how much J rises."""
        if not snapshot.is_finite:
            return {}
        point = snapshot.local_objective
        values = self._measure_rise(point, snapshot.hessian)
        if self.rescale is not None:
            moved = rescale_layers(point, self.rescale)
            rise = self._measure_rise(moved, HessianOperator(moved))
            values |= {f"rescaled/{name}": value for name, value in rise.items()}
            values["rescaled/change"] = compare_outputs(point, moved)
        return values

    def _measure_rise(self, point: LocalObjective, h: SymmetricOperator) -> dict[str, float]:
        """Take the three measures at a point with the Hessian h."""
        return {
            "box": box_sharpness(point, self.epsilon, self.iterations).percent,
            "sam": ball_sharpness(point, self.rho).rise,
            **measure_trace(h, self.probes),
        }

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw a panel a measure."""
        from truerisk.diagnostics.history_plots import add_panels, draw_band, draw_line

        headings = [
            f"ε-sharpness, % (ε = {self.epsilon:g})",
            f"rise of J along its gradient (ρ = {self.rho:g})",
            "trace of the Hessian",
        ]
        panels = add_panels(figure, table, headings, (1, 1, 1))
        draw_band(panels[-1], *trace_interval(table, self.probes))
        for panel, name in zip(panels, ("box", "sam", "trace"), strict=True):
            draw_line(panel, table[name])


def rescale_layers(point: LocalObjective, factor: float) -> LocalObjective:
    """Multiply the first layer's weights and biases, and divide the second layer's weights.

    The function is the same where what lies between them is positively homogeneous, as ReLU and
    pooling are.

    Args:
        point: J around weights of a network.
        factor: α > 0.

    Returns:
        J around the rescaled weights.

    Raises:
        ConfigError: the model has no two layers with matrices of weights.

    Source: Dinh, Pascanu, Bengio & Bengio, "Sharp Minima Can Generalize for Deep Nets" (2017), §3.
    """
    named = point.space.named(point.w)
    layers = [name[: -len("weight")] for name, w in named.items() if name.endswith("weight")]
    layers = [name for name in layers if named[f"{name}weight"].ndim > 1]
    if len(layers) < 2:
        raise ConfigError(
            "diagnostics.flatness.rescale scales one layer up and the next down, and this model "
            "has no two of them: set it to null"
        )
    first, second = layers[:2]
    named[f"{first}weight"] = factor * named[f"{first}weight"]
    if f"{first}bias" in named:
        named[f"{first}bias"] = factor * named[f"{first}bias"]
    named[f"{second}weight"] = named[f"{second}weight"] / factor
    return point.move_to(point.space.flat(named))


def compare_outputs(point: LocalObjective, moved: LocalObjective) -> float:
    """Compute max |f(x; w′) − f(x; w)| / max |f(x; w)| over the samples of a point."""
    pairs = [
        ((moved.outputs(moved.w, b) - out).abs().max(), out.abs().max())
        for b, out in point.map_batches(lambda batch: point.outputs(point.w, batch))
    ]
    changes, sizes = zip(*pairs, strict=True)
    return float(max(changes) / max(sizes))


def measure_trace(h: SymmetricOperator, probes: int) -> dict[str, float]:
    """Compute the trace of a matrix that is written out, or estimate it.

    Args:
        h: the matrix.
        probes: random vectors of the estimate.

    Returns:
        ``trace``, and ``trace/stderr`` where it is estimated.
    """
    if isinstance(h, DenseOperator):
        return {"trace": float(h.matrix.trace())}
    estimate = hutchinson_trace(h, probes)
    return {"trace": float(estimate.value), "trace/stderr": float(estimate.stderr)}


def trace_interval(table: pd.DataFrame, probes: int) -> tuple[pd.Series, pd.Series]:
    """Return both ends of Student's 95 % interval of a trace; of no width where it is exact.

    Args:
        table: with the columns ``trace`` and, where it is estimated, ``trace/stderr``.
        probes: random vectors of the estimate.
    """
    reach = 0 * table["trace"]
    if "trace/stderr" in table:
        reach = student_reach(probes - 1) * table["trace/stderr"].fillna(0)
    return table["trace"] - reach, table["trace"] + reach


def measure_condition(h: SymmetricOperator, ends: ExtremeEigenpairs) -> float:
    """Compute |λ|max/|λ|min.

    Args:
        h: the matrix.
        ends: of its spectrum.

    Returns:
        The condition number; nan where products with vectors do not tell it.
    """
    if isinstance(h, DenseOperator):
        return condition_number(h)
    low, high = (float(pairs.values) for pairs in ends)
    error = max(float(pairs.errors) for pairs in ends)
    # on both sides of 0, |λ|min lies inside the spectrum, where Lanczos does not look
    if low > error or high < -error:
        return max(abs(low), abs(high)) / min(abs(low), abs(high))
    return math.nan


def scaled_sharpness(
    limit: StabilityLimit,
    point: LocalObjective,
    h: SymmetricOperator,
    ends: ExtremeEigenpairs,
    tolerance: float,
) -> float:
    """Compute λmax of ``S^½ (H + C) S^½``.

    Args:
        limit: with S and C.
        point: whose space lays the parameters side by side.
        h: H.
        ends: of the spectrum of H.
        tolerance: of the eigenvalue, relative to |λ|max.
    """
    scale, shift = point.space.flat(limit.scale), point.space.flat(limit.shift)
    if is_uniform(scale) and is_uniform(shift):  # λmax of H tells it: no further products
        return float(scale[0] * (ends.largest.values[0] + shift[0]))
    return float(largest_eigenvalues(ScaledOperator(h, scale, shift), tol=tolerance).values)


def is_uniform(values: Tensor) -> bool:
    """Tell whether all entries are equal."""
    return bool((values == values[0]).all())
