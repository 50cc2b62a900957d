"""How noisy the gradient of a batch is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.layers import layer_of
from truerisk.objective import LocalObjective, per_sample_gradients

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot

MEMORY = 2**23
"""Numbers in the per-sample gradients that are held at once."""


class GradientNoise(Diagnostic):
    """Variance of the batch gradient, from the gradient of each sample's loss.

    With gᵢ the gradients of n training samples (without penalties, whose gradient has no noise,
    and in eval mode), and ḡ their mean, the estimates are

        tr Σ = 1/(n − 1) Σ ‖gᵢ − ḡ‖²              ``variance``
        ‖∇g‖² = ‖ḡ‖² − tr Σ / n                   ``signal``, which can come out negative
        B = tr Σ / ‖∇g‖²                          ``noise_scale``; m = B has as much noise as signal

    all without bias but the last (McCandlish et al. 2018, §2.2 and App. A.1). A batch of m samples
    has the gradient's variance tr Σ/m: ``batch_variance`` for the m of the run's steps, and
    ``law/<m>`` as it is found between groups of m samples, to be compared. ``two_batch`` is the
    noise scale from squared norms at two sizes alone, the step's m (the next lower power of two)
    and n, as one would have them from data-parallel training. ``signal_to_noise/<layer>`` is
    ``√(‖∇g‖² / (tr Σ/m))`` of a layer's parameters, 0 where the signal is not above 0.

    Args:
        every: when to look; see `Diagnostic`.
        samples: n; the next lower power of two is taken.
    """

    cost = "moderate"

    def __init__(self, every: Mapping[str, Any] | None = None, samples: int = 256) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.gradient_noise.samples", samples, least=2)

    def look(self, snapshot: Snapshot) -> Values:
        """Take the gradients and compare them."""
        point = snapshot.point
        n = power_below(min(self.samples, len(snapshot.run.measured_index)))
        size = power_below(max(1, min(n, MEMORY // point.space.size)))
        cut = LocalObjective(snapshot.objective, None, list(snapshot.batches(size, most=n)))
        groups = {name: layer_of(name) for name in point.space.shapes}
        seen = gather(per_sample_gradients(cut), point.space.sizes)
        return self._values(seen, list(groups.values()), snapshot.run.step_size)

    def _values(self, seen: Squares, layers: list[str], m: int) -> dict[str, float]:
        found = noise(seen.samples, seen.single.sum().item(), seen.mean.sum().item())
        half = power_below(min(m, seen.samples // 2))
        two = two_batch(half, seen.groups[half], seen.samples, seen.mean.sum().item())
        values = {
            "variance": found.variance,
            "signal": found.signal,
            "noise_scale": found.scale,
            "batch_variance": found.variance / m,
            "two_batch": two.scale,
        }
        values |= {f"law/{k}": v for k, v in seen.law().items()}
        for layer in dict.fromkeys(layers):
            mine = [i for i, name in enumerate(layers) if name == layer]
            own = noise(seen.samples, seen.single[mine].sum().item(), seen.mean[mine].sum().item())
            values[f"signal_to_noise/{layer}"] = own.ratio(m)
        return values

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The variance over the batch size, the noise scale, and signal to noise by layer."""
        from truerisk.diagnostics.picture import layer_lines, lines, over_steps
        from truerisk.show.panel import frame_axes

        law, scale, ratio = figure.subplots(3, height_ratios=[1.2, 1, 1.2])
        frame_axes(law, "variance of the batch gradient over the batch size m")
        _draw_law(law, table)
        frame_axes(scale, "noise scale B, in samples")
        names = {"exact": "noise_scale", "two batches": "two_batch"}
        lines(scale, {k: table[v].where(table[v] > 0) for k, v in names.items()})
        frame_axes(ratio, "signal to noise of a step, by layer")
        layer_lines(ratio, table, "signal_to_noise", from_zero=True)
        for axes in (scale, ratio):
            over_steps(axes, table)
        scale.set_xlabel("")


class Noise(NamedTuple):
    """Estimates from n gradients: tr Σ and ‖∇g‖²."""

    variance: float
    signal: float

    @property
    def scale(self) -> float:
        """B, in samples; infinite where no signal is seen."""
        return self.variance / self.signal if self.signal > 0 else math.inf

    def ratio(self, m: int) -> float:
        """Signal to noise of a batch of m."""
        if self.signal <= 0:
            return 0.0
        return math.sqrt(self.signal * m / self.variance) if self.variance > 0 else math.inf


def two_batch(small: int, square: float, big: int, big_square: float) -> Noise:
    """tr Σ and ‖∇g‖² from E‖g_m‖² = ‖∇g‖² + tr Σ/m at two sizes (McCandlish et al. 2018, A.1).

    >>> two_batch(1, 5.0, 4, 2.0)
    Noise(variance=4.0, signal=1.0)
    """
    variance = (square - big_square) / (1 / small - 1 / big)
    return Noise(variance, (big * big_square - small * square) / (big - small))


def noise(n: int, single: float, mean: float) -> Noise:
    """tr Σ and ‖∇g‖² from 1/n Σ‖gᵢ‖² and ‖ḡ‖²: the two sizes are 1 and n.

    >>> noise(2, 5.0, 4.0)    # gradients 1 and 3: the variance is 2
    Noise(variance=2.0, signal=3.0)
    """
    return two_batch(1, single, n, mean)


class Squares(NamedTuple):
    """Squared norms of gradients: means over single samples, groups of m, and of all n."""

    samples: int
    single: Tensor
    """1/n Σ ‖gᵢ‖², a parameter"""
    mean: Tensor
    """‖ḡ‖², a parameter"""
    groups: dict[int, float]
    """the mean of ‖g_m‖² over consecutive groups of m = 1, 2, 4, …, n samples"""

    def law(self) -> dict[int, float]:
        """The variance between the gradients of groups of m, while there are two of them.

        ``1/(k − 1) Σ ‖g_m − ḡ‖²`` over the k = n/m groups, an unbiased estimate of tr Σ/m.
        """
        whole = self.groups[self.samples]
        counts = {m: self.samples // m for m in self.groups if m < self.samples}
        return {m: k / (k - 1) * (self.groups[m] - whole) for m, k in counts.items()}


def gather(rows: Iterable[Tensor], sizes: list[int]) -> Squares:
    """Squared norms of gradients that come in blocks [b, p] of equal size, a power of two.

    ``sizes`` are those of the parameters, side by side in a row.
    """
    single = torch.zeros(len(sizes), dtype=torch.float64)
    squares: dict[int, list[float]] = {}
    blocks, size = [], 1
    for block in rows:
        size = len(block)
        single += _by_parameter(block, sizes)
        blocks.append(_note(block, 1, squares))
    squares.pop(size)  # noted again, as the first of the next
    mean = _note(torch.stack(blocks), size, squares)
    groups = {m: sum(found) / len(found) for m, found in squares.items()}
    samples = size * len(blocks)
    return Squares(samples, single / samples, _by_parameter(mean[None], sizes), groups)


def _note(rows: Tensor, m: int, squares: dict[int, list[float]]) -> Tensor:
    """Halve rows, each the mean of m gradients, down to their mean; note the squared norms."""
    squares.setdefault(m, []).extend(rows.square().sum(1).tolist())
    return rows[0] if len(rows) == 1 else _note((rows[::2] + rows[1::2]) / 2, 2 * m, squares)


def _by_parameter(rows: Tensor, sizes: list[int]) -> Tensor:
    """The sum of squares over all rows, by parameter."""
    return torch.stack([part.square().sum() for part in rows.split(sizes, 1)]).double().cpu()


def power_below(n: int) -> int:
    """The largest power of two that is at most n.

    >>> power_below(1), power_below(255)
    (1, 128)
    """
    return 1 << (n.bit_length() - 1)


def _draw_law(axes: Axes, table: pd.DataFrame) -> None:
    """The variance found between groups, on the line tr Σ/m, at the last look."""
    from matplotlib.ticker import NullFormatter

    from truerisk.diagnostics.picture import columns
    from truerisk.show.figure import write_note
    from truerisk.show.panel import set_plain_ticks
    from truerisk.show.style import FAINT, INK, SIZE

    last = table.iloc[-1]
    found = {int(m): values.iloc[-1] for m, values in columns(table, "law").items()}
    sizes, step = sorted(found), round(last["variance"] / last["batch_variance"])
    line = [last["variance"] / m for m in sizes]
    axes.loglog(sizes, line, color=FAINT, linewidth=2)
    axes.loglog(sizes, [found[m] for m in sizes], "o", color=INK, markersize=7)
    axes.set_xticks(sizes, [str(m) for m in sizes], fontsize=SIZE - 1)
    axes.xaxis.set_minor_formatter(NullFormatter())
    text = f"line: tr Σ/m\na step has m = {step}"
    write_note(axes, text, sizes[len(sizes) // 2], 1.0, right=False)
    set_plain_ticks(axes)
