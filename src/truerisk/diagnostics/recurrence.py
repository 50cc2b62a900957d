"""How a recurrent layer carries its state, and the gradient, over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from truerisk.core.checks import check_int
from truerisk.core.recurrent_cells import elman_state, lstm_state
from truerisk.diagnostics.diagnostic import Diagnostic, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

GATES = {"RNN": "", "LSTM": "ifgo", "GRU": "rzn"}
"""The letters of a layer's gates, in the order of its weights."""
STEEPEST = {"tanh": 1.0, "relu": 1.0, "sigmoid": 0.25}
"""max φ′ of a plain layer's activation."""


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
        """Refuse models without a recurrent layer that has square recurrent weights."""
        layers = find_recurrent_layers(recipe.model)
        if not layers:
            return "the model has no recurrent layer (rnn, lstm, gru): leave it out"
        if any(layer.proj_size for layer in layers.values()):
            return "an LSTM with projections (proj_size) has no square recurrent weights"
        return None

    def look(self, snapshot: Snapshot) -> Values:
        """Take every recurrent layer through the samples, one step after another."""
        layers = find_recurrent_layers(snapshot.model)
        parts = [capture_inputs(snapshot.model, b.x) for b in snapshot.batches(most=self.samples)]
        values: dict[str, float] = {}
        for name in parts[0]:
            inputs = torch.cat([part[name] for part in parts])
            for label, layer, sequence in split_directions(layers[name], inputs):
                values |= self._measure_layer(f"{name}{label}", layer, sequence)
        return values

    def _measure_layer(self, name: str, layer: DirectedLayer, x: Tensor) -> dict[str, float]:
        """Measure one layer in one direction on sequences x [n, T, features]."""
        values: dict[str, float] = {}
        for gate, radius in zip(GATES[layer.kind] or ("",), spectral_radii(layer), strict=True):
            values[f"radius/{name}{gate and f'.{gate}'}"] = radius
        if layer.kind == "RNN":
            values[f"bound/{name}"] = bound_jacobian(layer)
        norms = jacobian_norms(layer, x).mean(1).tolist()
        # a few, evenly spaced, as a long sequence would be hundreds of columns
        lags = torch.linspace(0, len(norms) - 1, min(self.lags, len(norms))).round().int()
        return values | {f"norm/{name}/{k}": norms[k] for k in lags.tolist()}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the norms over T − t at the first and the last look, and the radii over steps."""
        from truerisk.diagnostics.history_plots import draw_layers, set_step_axis
        from truerisk.show.panel import frame_axes

        norm, radius = figure.subplots(2, height_ratios=[1.5, 1])
        legend = "thin: first look"
        if any(name.startswith("bound/") for name in table.columns):
            legend += ", dotted: bound"
        frame_axes(norm, f"‖∂h_T/∂h_t‖ over T − t; {legend}")
        _draw_norms(norm, table)
        frame_axes(radius, "spectral radius of recurrent weights")
        draw_layers(radius, table, "radius")
        set_step_axis(radius, table)


def find_recurrent_layers(model: nn.Module) -> dict[str, nn.RNNBase]:
    """Find the recurrent layers of a model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.RNNBase)}


@torch.no_grad()
def capture_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Capture what each recurrent layer is given in a forward pass.

    Args:
        model: with recurrent layers.
        x: samples [n, *shape].

    Returns:
        The inputs of a layer's first call, [n, steps, features], by the layer's name.
    """
    inputs: dict[str, Tensor] = {}

    def make_hook(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            first = args[0].detach()
            inputs.setdefault(name, first if layer.batch_first else first.transpose(0, 1))

        return hook

    layers = find_recurrent_layers(model)
    handles = [m.register_forward_pre_hook(make_hook(name)) for name, m in layers.items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


class DirectedLayer(NamedTuple):
    """One direction of one recurrent layer, a step of which can be differentiated.

    The state s is h, [n, width]; for an LSTM h and c side by side, [n, 2·width].
    """

    kind: str
    """RNN, LSTM or GRU"""
    activation: str
    """tanh, relu or sigmoid, of an RNN"""
    residual: bool
    """whether an RNN adds the state before"""
    weight: Tensor
    """of the inputs, [gates·width, features]"""
    recurrent: Tensor
    """of the state, [gates·width, width]"""
    biases: tuple[Tensor, Tensor]
    """beside either, [gates·width]"""

    @property
    def width(self) -> int:
        """Units of the state."""
        return self.recurrent.shape[1]

    @property
    def zero_state(self) -> Tensor:
        """The state before the first input, [|s|]."""
        parts = {"LSTM": 2}.get(self.kind, 1)
        return self.recurrent.new_zeros(self.width * parts)

    def step(self, s: Tensor, x: Tensor) -> Tensor:
        """Compute the state after an input.

        Args:
            s: states [..., |s|].
            x: inputs [..., features].

        Returns:
            The next states [..., |s|].
        """
        h, from_input = s[..., : self.width], x @ self.weight.T + self.biases[0]
        from_state = h @ self.recurrent.T + self.biases[1]
        if self.kind == "RNN":
            activation = getattr(torch, self.activation)
            previous = s if self.residual else None
            return elman_state(from_input, from_state, activation, previous)
        if self.kind == "LSTM":
            return torch.cat(lstm_state(from_input + from_state, s[..., self.width :]), -1)
        # not `gru_state`: its one sigmoid for both gates rounds otherwise in the last place
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
        z, new = (xz + hz).sigmoid(), torch.tanh(xn + (xr + hr).sigmoid() * hn)
        return (1 - z) * new + z * h

    def unroll_states(self, x: Tensor) -> Tensor:
        """Compute the state after each input of sequences x [n, T, features]: [T, n, |s|]."""
        s, states = self.zero_state.expand(len(x), -1), []
        for x_t in x.unbind(1):
            s = self.step(s, x_t)
            states.append(s)
        return torch.stack(states)

    def step_jacobians(self, x: Tensor) -> Tensor:
        """Differentiate each state by the one before it, on sequences x [n, T, features].

        Returns:
            ``∂s_t/∂s_{t−1}`` for t = 1, …, T: [T, n, |s|, |s|].
        """
        states = self.unroll_states(x)
        before = torch.cat([self.zero_state.expand(1, len(x), -1), states[:-1]])
        # torch's own layers give no access to the states in the middle of a sequence of an LSTM
        jacobian = vmap(vmap(jacrev(self.step)))
        return jacobian(before, x.transpose(0, 1))


def split_directions(layer: nn.RNNBase, x: Tensor) -> Iterator[tuple[str, DirectedLayer, Tensor]]:
    """Split a recurrent module into its layers and directions, in the order they are computed.

    Args:
        layer: of any depth, in one direction or both.
        x: what it is given, [n, T, features].

    Yields:
        A label (``.1.reverse``; empty for a single one), the layer, and its inputs [n, T, features]
        in the order in which it reads them.
    """
    for depth in range(layer.num_layers):
        outputs = []
        for reverse in range(1 + layer.bidirectional):
            suffix = f"_l{depth}" + "_reverse" * reverse
            label = f".{depth}" * (layer.num_layers > 1) + ".reverse" * reverse
            directed = _read_weights(layer, suffix)
            sequence = x.flip(1) if reverse else x
            yield label, directed, sequence
            h = directed.unroll_states(sequence)[..., : directed.width].transpose(0, 1)
            outputs.append(h.flip(1) if reverse else h)
        x = torch.cat(outputs, -1)


def _read_weights(layer: nn.RNNBase, suffix: str) -> DirectedLayer:
    """Read the weights of one layer and direction, named by torch's suffix."""
    weight = getattr(layer, f"weight_ih{suffix}").detach()
    recurrent = getattr(layer, f"weight_hh{suffix}").detach()
    biases = (recurrent.new_zeros(len(recurrent)),) * 2
    if layer.bias:
        names = (f"bias_ih{suffix}", f"bias_hh{suffix}")
        biases = (getattr(layer, names[0]).detach(), getattr(layer, names[1]).detach())
    kind = layer.mode.partition("_")[0]
    # `residual` is of the project's own layer, `nonlinearity` of plain ones alone
    activation, residual = getattr(layer, "nonlinearity", ""), getattr(layer, "residual", False)
    return DirectedLayer(kind, activation, residual, weight, recurrent, biases)


def spectral_radii(layer: DirectedLayer) -> list[float]:
    """Compute ρ(U) of every gate, in the order of `GATES`."""
    # in double precision: eigenvalues of such a matrix may be very sensitive
    matrices = torch.stack(layer.recurrent.chunk(layer.recurrent.shape[0] // layer.width))
    return torch.linalg.eigvals(matrices.double()).abs().amax(-1).tolist()


def bound_jacobian(layer: DirectedLayer) -> float:
    """Bound ``‖∂h_t/∂h_{t−1}‖`` of a plain RNN by ‖U‖₂ · max φ′, and 1 more if it is residual."""
    norm = torch.linalg.matrix_norm(layer.recurrent.double(), 2).item()
    return layer.residual + STEEPEST[layer.activation] * norm


def jacobian_norms(layer: DirectedLayer, x: Tensor) -> Tensor:
    """Compute ``‖∂h_T/∂h_t‖₂`` on sequences x [n, T, features].

    Returns:
        The norms at T − t = 0, …, T − 1, of every sample: [T, n].
    """
    steps = layer.step_jacobians(x)
    product = torch.eye(steps.shape[-1], dtype=steps.dtype, device=steps.device)
    product = product.expand(len(x), *product.shape)
    products = [product]
    # from the end, so that one product after another gives the norms of every lag
    for step in reversed(steps[1:]):
        product = product @ step
        products.append(product)
    return torch.linalg.matrix_norm(torch.stack(products), 2)


def _draw_norms(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a line for each layer and direction, and the bound on those of a plain RNN."""
    from truerisk.diagnostics.history_plots import COLORS, select_columns, shorten_names
    from truerisk.show.panel import label_ends, set_plain_ticks
    from truerisk.show.style import DASHES

    axes.set_yscale("log")
    tables = split_by_lag(select_columns(table, "norm"))
    ends, names = [], shorten_names(list(tables))
    for name, looks, color in zip(names, tables.values(), cycle(COLORS), strict=False):
        first, last = looks.iloc[0], looks.iloc[-1]
        axes.plot(first.index, first.to_numpy(), color=color, linewidth=1)
        axes.plot(last.index, last.to_numpy(), color=color, linewidth=2.6)
        ends.append((last.iloc[-1], name, color))
    low, high = axes.get_ylim()
    for layer, color in zip(tables, cycle(COLORS), strict=False):
        if f"bound/{layer}" in table:
            lags = tables[layer].columns
            bound = table[f"bound/{layer}"].iloc[-1] ** lags.to_numpy(dtype=float)
            axes.plot(lags, bound, color=color, linewidth=2, linestyle=DASHES[2])
    # a bound far above 1 promises nothing, and would leave the norms a thin strip
    axes.set_ylim(low, min(axes.get_ylim()[1], 100 * high))
    set_plain_ticks(axes)
    label_ends(axes, ends)


def split_by_lag(norms: Mapping[str, pd.Series]) -> dict[str, pd.DataFrame]:
    """Gather the columns ``<layer>/<k>`` in a table a layer: a row a look, a column a k."""
    import pandas as pd

    columns: dict[str, dict[int, pd.Series]] = {}
    for name, values in norms.items():
        layer, _, lag = name.rpartition("/")
        columns.setdefault(layer, {})[int(lag)] = values
    return {layer: pd.DataFrame(lags).sort_index(axis=1) for layer, lags in columns.items()}
