"""The density of the eigenvalues of a curvature matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.figure_arrays import keep_row, read_arrays
from truerisk.objective import (
    GaussNewtonOperator,
    HessianOperator,
    SpectralDensity,
    spectral_density,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot

OPERATORS: Mapping[str, type[HessianOperator | GaussNewtonOperator]] = {
    "hessian": HessianOperator,
    "gauss_newton": GaussNewtonOperator,
}
TITLES = {"hessian": "Hessian", "gauss_newton": "Gauss–Newton matrix"}

MAX_NUMBERS = 2**26
"""Most numbers that the Lanczos vectors may take at once."""

NEAR = 0.01
"""Eigenvalues up to this share of |λ|max count as near 0."""


class Spectrum(Diagnostic):
    """The eigenvalue density of the Hessian of J or of its Gauss–Newton matrix.

    By stochastic Lanczos quadrature (Ghorbani, Krishnan & Xiao, ICML 2019; see
    `truerisk.objective.spectral_density`). Logged are both ends of it, ``lambda_min``
    and ``lambda_max``, and the shares of eigenvalues ``near_zero``, within 1 % of |λ|max, and
    ``negative``, below that. The nodes and weights are in ``figures/spectrum.npz``, [looks, probes,
    steps].

    Args:
        every: when to look; see `Diagnostic`.
        of: ``hessian`` or ``gauss_newton``.
        probes: random vectors.
        steps: Lanczos steps for each.
    """

    cost = "heavy"
    on_functions = True

    def __init__(
        self,
        every: Mapping[str, Any] | None = None,
        of: str = "hessian",
        probes: int = 4,
        steps: int = 64,
    ) -> None:
        super().__init__(every)
        if of not in OPERATORS:
            raise ConfigError(f"diagnostics.spectrum.of={of}: {suggest(str(of), OPERATORS)}")
        self.of = of
        self.probes = check_int("diagnostics.spectrum.probes", probes)
        self.steps = check_int("diagnostics.spectrum.steps", steps, 2)

    def look(self, snapshot: Snapshot) -> Values:
        """Measure the density, and keep it for the figure."""
        if not snapshot.is_finite:
            return {}
        matrix = OPERATORS[self.of](snapshot.local_objective)
        # as many vectors at once as memory allows
        together = max(1, MAX_NUMBERS // (matrix.size * self.steps))
        together = min(together, self.probes)
        density = spectral_density(matrix, self.probes, self.steps, together=together)
        nodes, weights = (part.cpu().numpy() for part in density)
        keep_row(snapshot, self.name, nodes=nodes, weights=weights)
        return summarize_density(density)

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the densities that were kept beside the figure."""
        self.densities = read_arrays(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.densities else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the first density, the middle one and the last, each on its own scale."""
        from truerisk.show.style import INK, SIZE

        steps = self.densities["step"]
        rows = sorted({0, len(steps) // 2, len(steps) - 1})
        panels = figure.subplots(len(rows), squeeze=False)[:, 0]
        for axes, i in zip(panels, rows, strict=True):
            nodes = torch.from_numpy(self.densities["nodes"][i])
            weights = torch.from_numpy(self.densities["weights"][i])
            draw_density(axes, SpectralDensity(nodes, weights), int(steps[i]))
        panels[-1].set_xlabel(f"eigenvalue λ of the {TITLES[self.of]}", fontsize=SIZE, color=INK)


def summarize_density(density: SpectralDensity) -> dict[str, float]:
    """Read both ends of a density, and the shares of eigenvalues near 0 and below."""
    low, high = float(density.nodes.min()), float(density.nodes.max())
    near = NEAR * max(abs(low), abs(high))
    return {
        "lambda_min": low,
        "lambda_max": high,
        "near_zero": float(density.share(-near, near).value),
        "negative": float(density.share(high=np.nextafter(-near, -np.inf)).value),
    }


def draw_density(axes: Axes, density: SpectralDensity, step: int) -> None:
    """Draw a density on a log scale, over a little more than its extent.

    Args:
        axes: the panel.
        density: of eigenvalues.
        step: after which they are measured.
    """
    from truerisk.show.panel import frame_axes
    from truerisk.show.style import BLUE, FAINT, INK, SIZE

    low, high = float(density.nodes.min()), float(density.nodes.max())
    room = 0.06 * (high - low or 1.0)
    grid = torch.linspace(low - room, high + room, 800, dtype=torch.float64)
    values = density.on(grid).numpy()
    axes.fill_between(grid.numpy(), values, 0, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(grid.numpy(), values, color=BLUE, linewidth=2)
    axes.axvline(0, color=FAINT, linestyle=":", linewidth=1.4)
    axes.set(yscale="log", ylim=(values.max() * 1e-7, values.max() * 3))
    frame_axes(axes, f"density at step {step}")
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(axis="y", which="minor", left=False)
    axes.set_ylabel("", fontsize=SIZE, color=INK)
