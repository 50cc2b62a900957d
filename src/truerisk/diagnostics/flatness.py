"""How flat J is around the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics.curvature import trace
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.objective import ball_sharpness, box_sharpness

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class Flatness(Diagnostic):
    """Three measures of how much J rises around w.

    * ``box``: ``100 (max J(w + y) − J(w)) / (1 + J(w))`` over ``|yᵢ| ≤ ε(|wᵢ| + 1)``, in percent:
      the ε-sharpness of Keskar et al. (ICLR 2017), metric 2.1, by some iterations of L-BFGS-B.
    * ``sam``: ``J(w + ρ g/‖g‖) − J(w)``, to first order the most J rises at a distance of ρ (Foret
      et al., ICLR 2021).
    * ``trace``: of ∇²J; for noise of variance σ² on every weight, J rises by ½σ² tr ∇²J on average.

    None of them is invariant to how a network's layers are scaled (Dinh et al., ICML 2017).

    Args:
        every: when to look; see `Diagnostic`.
        epsilon: ε.
        iterations: of L-BFGS-B.
        rho: ρ.
        probes: random vectors for the trace.
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
    ) -> None:
        super().__init__(every)
        self.epsilon = check_float("diagnostics.flatness.epsilon", epsilon, 0, above=True)
        self.iterations = check_int("diagnostics.flatness.iterations", iterations)
        self.rho = check_float("diagnostics.flatness.rho", rho, 0, above=True)
        self.probes = check_int("diagnostics.flatness.probes", probes, 2)

    def look(self, snapshot: Snapshot) -> Values:
        """The three measures."""
        if not snapshot.is_finite:
            return {}
        return {
            "box": box_sharpness(snapshot.point, self.epsilon, self.iterations).percent,
            "sam": ball_sharpness(snapshot.point, self.rho).rise,
            **trace(snapshot.hessian, self.probes),
        }

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """A panel a measure."""
        from truerisk.diagnostics.history_plots import add_panels, draw_line

        headings = [
            f"ε-sharpness, % (ε = {self.epsilon:g})",
            f"rise of J along its gradient (ρ = {self.rho:g})",
            "trace of the Hessian",
        ]
        drawn = add_panels(figure, table, headings, (1, 1, 1))
        for panel, name in zip(drawn, ("box", "sam", "trace"), strict=True):
            draw_line(panel, table[name])
