"""How a recurrent layer carries its state, and the gradient, over time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.diagnostics.cell import GATES, STEEPEST, Cell, cells
from truerisk.diagnostics.diagnostic import Diagnostic, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe


class Recurrence(Diagnostic):
    """Spectral radii of recurrent weights, and the Jacobian of the last state in earlier ones.

    For every layer and direction with recurrent weights U (one matrix a gate):

    * ``radius/<layer>`` is ρ(U), the largest |eigenvalue|, of each gate by its letter:
      i, f, g, o of an LSTM, r, z, n of a GRU.
    * ``norm/<layer>/<k>`` is ``‖∂h_T/∂h_t‖₂`` for k = T − t, the mean over some training samples;
      for an LSTM, h stands for the whole state (h, c).
    * ``bound/<layer>`` is ``‖U‖₂ · max φ′`` of a plain RNN, so that ``‖∂h_T/∂h_t‖ ≤ bound^(T−t)``:
      below 1, what lies long ago is sure to vanish (Pascanu, Mikolov & Bengio 2013, §2.1). Of a
      residual one it is ``1 + ‖U‖₂ · max φ′``.

    A reversed direction reads the last step first; k counts its steps alike.

    Args:
        every: when to look; see `Diagnostic`.
        samples: over which norms are averaged.
        lags: k of which norms are logged, at most, evenly spread over the sequence.
    """

    cost = "moderate"

    def __init__(
        self, every: Mapping[str, Any] | None = None, samples: int = 16, lags: int = 40
    ) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.recurrence.samples", samples)
        self.lags = check_int("diagnostics.recurrence.lags", lags, least=2)

    def refuse(self, recipe: Recipe) -> str | None:
        """A model needs a recurrent layer with square recurrent weights."""
        found = layers(recipe.model)
        if not found:
            return "the model has no recurrent layer (rnn, lstm, gru): leave it out"
        if any(layer.proj_size for layer in found.values()):
            return "an LSTM with projections (proj_size) has no square recurrent weights"
        return None

    def look(self, snapshot: Snapshot) -> Values:
        """Take every recurrent layer through the samples, one step after another."""
        (batch,) = snapshot.batches(self.samples, most=self.samples)
        values: dict[str, float] = {}
        for name, sequence in inputs(snapshot.model, batch.x).items():
            for label, cell, x in cells(layers(snapshot.model)[name], sequence):
                values |= self._cell(f"{name}{label}", cell, x)
        return values

    def _cell(self, name: str, cell: Cell, x: Tensor) -> dict[str, float]:
        gates = GATES[cell.kind] or ("",)
        radii = zip(gates, spectral_radii(cell), strict=True)
        values = {f"radius/{name}{gate and f'.{gate}'}": radius for gate, radius in radii}
        if cell.kind == "RNN":
            values[f"bound/{name}"] = bound(cell)
        norms = jacobian_norms(cell, x).mean(1).tolist()
        every = torch.linspace(0, len(norms) - 1, min(self.lags, len(norms))).round().int()
        return values | {f"norm/{name}/{k}": norms[k] for k in every.tolist()}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The norms over T − t at the first and the last look, and the radii over the steps."""
        from truerisk.diagnostics.picture import layer_lines, over_steps
        from truerisk.show.panel import frame_axes

        norm, radius = figure.subplots(2, height_ratios=[1.5, 1])
        bounded = any(name.startswith("bound/") for name in table.columns)
        told = "thin: first look" + (", dotted: bound" if bounded else "")
        frame_axes(norm, f"‖∂h_T/∂h_t‖ over T − t; {told}")
        _draw_norms(norm, table)
        frame_axes(radius, "spectral radius of recurrent weights")
        layer_lines(radius, table, "radius")
        over_steps(radius, table)


def layers(model: nn.Module) -> dict[str, nn.RNNBase]:
    """The recurrent layers of a model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.RNNBase)}


@torch.no_grad()
def inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each recurrent layer is given for samples x, [n, steps, features], by its name."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            first = args[0].detach()
            seen.setdefault(name, first if layer.batch_first else first.transpose(0, 1))

        return hook

    handles = [m.register_forward_pre_hook(watch(name)) for name, m in layers(model).items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def spectral_radii(cell: Cell) -> list[float]:
    """ρ(U) of every gate."""
    matrices = torch.stack(cell.recurrent.chunk(cell.recurrent.shape[0] // cell.width))
    return torch.linalg.eigvals(matrices.double()).abs().amax(-1).tolist()


def bound(cell: Cell) -> float:
    """‖U‖₂ · max φ′ ≥ ‖∂h_t/∂h_{t−1}‖ of a plain RNN; by 1 more where h_{t−1} is added."""
    norm = torch.linalg.matrix_norm(cell.recurrent.double(), 2).item()
    return cell.residual + STEEPEST[cell.activation] * norm


def jacobian_norms(cell: Cell, x: Tensor) -> Tensor:
    """‖∂h_T/∂h_t‖₂ for samples x [n, T, features], at T − t = 0, …, T − 1: [T, n]."""
    steps = cell.jacobians(x)
    product = torch.eye(steps.shape[-1], dtype=steps.dtype, device=steps.device)
    product = product.expand(len(x), *product.shape)
    products = [product]
    for step in reversed(steps[1:]):
        product = product @ step
        products.append(product)
    return torch.linalg.matrix_norm(torch.stack(products), 2)


def _draw_norms(axes: Axes, table: pd.DataFrame) -> None:
    """A line for each layer and direction, and the bound on those of a plain RNN."""
    from truerisk.diagnostics.picture import COLORS, columns, short
    from truerisk.show.panel import label_ends, set_plain_ticks
    from truerisk.show.style import DASHES

    axes.set_yscale("log")
    found = by_lag(columns(table, "norm"))
    ends, names = [], short(list(found))
    for name, looks, color in zip(names, found.values(), cycle(COLORS), strict=False):
        first, last = looks.iloc[0], looks.iloc[-1]
        axes.plot(first.index, first.to_numpy(), color=color, linewidth=1)
        axes.plot(last.index, last.to_numpy(), color=color, linewidth=2.6)
        ends.append((last.iloc[-1], name, color))
    low, high = axes.get_ylim()
    for layer, color in zip(found, cycle(COLORS), strict=False):
        if f"bound/{layer}" in table:
            lags = found[layer].columns
            most = table[f"bound/{layer}"].iloc[-1] ** lags.to_numpy(dtype=float)
            axes.plot(lags, most, color=color, linewidth=2, linestyle=DASHES[2])
    axes.set_ylim(low, min(axes.get_ylim()[1], 100 * high))
    set_plain_ticks(axes)
    label_ends(axes, ends)


def by_lag(norms: Mapping[str, pd.Series]) -> dict[str, pd.DataFrame]:
    """The columns ``<layer>/<k>`` as a table a layer: a row a look, a column a k."""
    import pandas as pd

    found: dict[str, dict[int, pd.Series]] = {}
    for name, values in norms.items():
        layer, _, lag = name.rpartition("/")
        found.setdefault(layer, {})[int(lag)] = values
    return {layer: pd.DataFrame(lags).sort_index(axis=1) for layer, lags in found.items()}
