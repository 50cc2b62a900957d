"""How noisy the gradient of a batch is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import name_layer
from truerisk.objective import LocalObjective, per_sample_gradients

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot

MAX_NUMBERS = 2**23
"""Numbers in the per-sample gradients that are held at once."""


class GradientNoise(Diagnostic):
    """Variance of the batch gradient, from the gradient of each sample's loss.

    With gᵢ the gradients of n training samples (without penalties, whose gradient has no noise,
    and in eval mode), and ḡ their mean, the estimates are

        tr Σ = 1/(n − 1) Σ ‖gᵢ − ḡ‖²              ``variance``
        ‖∇g‖² = ‖ḡ‖² − tr Σ / n                   ``signal``, which can come out negative
        B = tr Σ / ‖∇g‖²                          ``noise_scale``; m = B has as much noise as signal

    all without bias but the last (McCandlish et al. 2018, §2.2 and App. A.1), for samples drawn one
    by one. The gradient of m of them has the variance tr Σ/m: ``law/<m>``, as it is found between
    groups of m samples. A run's steps take theirs out of N without putting any back, which leaves
    ``(1 − m/N) tr Σ/m`` around the gradient of all (Cochran 1977, theorem 2.2): ``batch_variance``,
    0 on the full batch. ``two_batch`` is the noise scale from squared norms at two sizes alone, the
    step's m (the next lower power of two) and n, as one would have them from data-parallel
    training. ``signal_to_noise/<layer>`` is ``√(‖∇g‖² / batch_variance)`` of a layer's parameters,
    0 where the signal is not above 0.

    Args:
        every: when to look; see `Diagnostic`.
        samples: n; the next lower power of two is taken.
    """

    cost = "moderate"

    def __init__(self, every: Mapping[str, Any] | None = None, samples: int = 256) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.gradient_noise.samples", samples, least=2)

    def look(self, snapshot: Snapshot) -> Values:
        """Take the gradients of single samples, and estimate from them."""
        point = snapshot.local_objective
        n = largest_power_of_two(min(self.samples, len(snapshot.run.measured_index)))
        # a power of two, so that blocks and groups of samples have common bounds
        most = min(n, snapshot.block_size, MAX_NUMBERS // point.space.size)
        size = largest_power_of_two(max(1, most))
        cut = LocalObjective(snapshot.objective, None, list(snapshot.batches(size, most=n)))
        squares = sum_squares(per_sample_gradients(cut), point.space.sizes)
        layers = [name_layer(name) for name in point.space.shapes]
        m, total = snapshot.run.step_size, len(snapshot.run.train_split)
        return self._estimate_values(squares, layers, m, total)

    def _estimate_values(
        self, squares: GradientSquares, layers: list[str], m: int, total: int
    ) -> dict[str, float]:
        """Compute all that is logged; ``layers`` has the layer of every parameter, N is total."""
        n, mean_square = squares.samples, squares.mean.sum().item()
        noise = estimate_noise(n, squares.single.sum().item(), mean_square)
        half = largest_power_of_two(min(m, n // 2))
        two = estimate_from_two_sizes(half, squares.groups[half], n, mean_square)
        values = {
            "variance": noise.variance,
            "signal": noise.signal,
            "noise_scale": noise.scale,
            "batch_variance": noise.batch_variance(m, total),
            "two_batch": two.scale,
        }
        values |= {f"law/{k}": v for k, v in squares.group_variances().items()}
        for layer in dict.fromkeys(layers):
            rows = [i for i, name in enumerate(layers) if name == layer]
            single, mean = squares.single[rows].sum().item(), squares.mean[rows].sum().item()
            own = estimate_noise(n, single, mean)
            values[f"signal_to_noise/{layer}"] = own.signal_to_noise(m, total)
        return values

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the variance over batch size, the noise scale, and signal to noise by layer."""
        from truerisk.diagnostics.history_plots import draw_layers, draw_lines, set_step_axis
        from truerisk.show.panel import frame_axes

        law, scale, ratio = figure.subplots(3, height_ratios=[1.2, 1, 1.2])
        frame_axes(law, "variance of the batch gradient over the batch size m")
        _draw_law(law, table)
        frame_axes(scale, "noise scale B, in samples")
        names = {"exact": "noise_scale", "two batches": "two_batch"}
        # the estimate of a square may be negative, and its noise scale has no meaning then
        draw_lines(scale, {k: table[v].where(table[v] > 0) for k, v in names.items()})
        frame_axes(ratio, "signal to noise of a step, by layer")
        draw_layers(ratio, table, "signal_to_noise", from_zero=True)
        for axes in (scale, ratio):
            set_step_axis(axes, table)
        scale.set_xlabel("")


class NoiseEstimate(NamedTuple):
    """Estimates of the noise and the size of a gradient.

    Args:
        variance: tr Σ, of the gradient of a single sample.
        signal: ‖∇g‖², which can come out negative.
    """

    variance: float
    signal: float

    @property
    def scale(self) -> float:
        """B, in samples; infinite where no signal is seen."""
        if self.signal <= 0:
            return math.inf
        return self.variance / self.signal

    def batch_variance(self, m: int, total: int) -> float:
        """Compute ``(1 − m/N) tr Σ/m``, of a batch of m out of N = ``total`` samples.

        >>> NoiseEstimate(variance=4.0, signal=1.0).batch_variance(2, 8)
        1.5
        """
        return (1 - min(m, total) / total) * self.variance / m

    def signal_to_noise(self, m: int, total: int) -> float:
        """Compute ``√(‖∇g‖² / ((1 − m/N) tr Σ/m))``; 0 where no signal is seen."""
        noise = self.batch_variance(m, total)
        if self.signal <= 0:
            return 0.0
        if noise <= 0:
            return math.inf
        return math.sqrt(self.signal / noise)


def estimate_from_two_sizes(
    small: int, small_square: float, big: int, big_square: float
) -> NoiseEstimate:
    """Solve ``E‖g_m‖² = ‖∇g‖² + tr Σ/m`` at two batch sizes m.

    Args:
        small: the smaller size.
        small_square: ‖g_m‖² of a batch of that size, or a mean over several.
        big: the larger size.
        big_square: the same at that size.

    Returns:
        tr Σ and ‖∇g‖², both without bias.

    Source: McCandlish et al., "An Empirical Model of Large-Batch Training" (2018), App. A.1.

    >>> estimate_from_two_sizes(1, 5.0, 4, 2.0)
    NoiseEstimate(variance=4.0, signal=1.0)
    """
    variance = (small_square - big_square) / (1 / small - 1 / big)
    return NoiseEstimate(variance, (big * big_square - small * small_square) / (big - small))


def estimate_noise(n: int, single_square: float, mean_square: float) -> NoiseEstimate:
    """Estimate tr Σ and ‖∇g‖² from the gradients of n samples: the two sizes are 1 and n.

    Args:
        n: samples.
        single_square: 1/n Σ‖gᵢ‖².
        mean_square: ‖ḡ‖².

    Returns:
        tr Σ and ‖∇g‖², both without bias.

    >>> estimate_noise(2, 5.0, 4.0)    # gradients 1 and 3: the variance is 2
    NoiseEstimate(variance=2.0, signal=3.0)
    """
    return estimate_from_two_sizes(1, single_square, n, mean_square)


class GradientSquares(NamedTuple):
    """Squared norms of gradients: means over single samples, groups of m, and of all n."""

    samples: int
    """n, a power of two"""
    single: Tensor
    """1/n Σ ‖gᵢ‖² of each parameter"""
    mean: Tensor
    """‖ḡ‖² of each parameter"""
    groups: dict[int, float]
    """the mean of ‖g_m‖² over consecutive groups of m = 1, 2, 4, …, n samples"""

    def group_variances(self) -> dict[int, float]:
        """Estimate tr Σ/m from groups of m samples, for every m with at least two groups.

        ``1/(k − 1) Σ ‖g_m − ḡ‖²`` over the k = n/m groups, without bias.
        """
        mean_square = self.groups[self.samples]
        counts = {m: self.samples // m for m in self.groups if m < self.samples}
        return {m: k / (k - 1) * (self.groups[m] - mean_square) for m, k in counts.items()}


def sum_squares(blocks: Iterable[Tensor], sizes: list[int]) -> GradientSquares:
    """Compute squared norms of gradients, of single samples and of groups.

    Args:
        blocks: gradients [b, p] of b samples each; b and the number of blocks are powers of two.
        sizes: of the parameters, side by side in a row; their sum is p.
    """
    single = torch.zeros(len(sizes), dtype=torch.float64)
    squares: dict[int, list[float]] = {}
    means, size = [], 1
    for block in blocks:
        size = len(block)
        single += _sum_by_parameter(block, sizes)
        means.append(_halve_rows(block, 1, squares))
    squares.pop(size)  # noted again, as the first of the next
    mean = _halve_rows(torch.stack(means), size, squares)
    groups = {m: sum(norms) / len(norms) for m, norms in squares.items()}
    n = size * len(means)
    return GradientSquares(n, single / n, _sum_by_parameter(mean[None], sizes), groups)


def _halve_rows(rows: Tensor, m: int, squares: dict[int, list[float]]) -> Tensor:
    """Halve rows, each the mean of m gradients, down to their mean; note the squared norms."""
    squares.setdefault(m, []).extend(rows.square().sum(1).tolist())
    if len(rows) == 1:
        return rows[0]
    # halves of halves, so that groups of every size cost one sum over the gradients
    return _halve_rows((rows[::2] + rows[1::2]) / 2, 2 * m, squares)


def _sum_by_parameter(rows: Tensor, sizes: list[int]) -> Tensor:
    """Sum the squares over all rows, by parameter."""
    return torch.stack([part.square().sum() for part in rows.split(sizes, 1)]).double().cpu()


def largest_power_of_two(n: int) -> int:
    """Find the largest power of two that is at most n.

    >>> largest_power_of_two(1), largest_power_of_two(255)
    (1, 128)
    """
    return 1 << (n.bit_length() - 1)


def _draw_law(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the variance between groups, on the line tr Σ/m, at the last look."""
    from matplotlib.ticker import NullFormatter

    from truerisk.diagnostics.history_plots import select_columns
    from truerisk.show.figure import write_note
    from truerisk.show.panel import set_plain_ticks
    from truerisk.show.style import FAINT, INK, SIZE

    last = table.iloc[-1]
    variances = {int(m): values.iloc[-1] for m, values in select_columns(table, "law").items()}
    sizes = sorted(variances)
    line = [last["variance"] / m for m in sizes]
    axes.loglog(sizes, line, color=FAINT, linewidth=2)
    axes.loglog(sizes, [variances[m] for m in sizes], "o", color=INK, markersize=7)
    axes.set_xticks(sizes, [str(m) for m in sizes], fontsize=SIZE - 1)
    axes.xaxis.set_minor_formatter(NullFormatter())
    text = f"line: tr Σ/m\na step's variance: {last['batch_variance']:.3g}"
    write_note(axes, text, sizes[len(sizes) // 2], 1.0, right=False)
    set_plain_ticks(axes)
