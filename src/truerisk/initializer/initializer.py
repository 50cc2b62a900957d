"""The initializer of every weight matrix by one scheme, and the schemes that torch lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError, read_message


def identity_(tensor: Tensor, scale: float = 1.0) -> Tensor:
    """Fill a matrix with scale · I, for hidden-to-hidden weights.

    Source: Le, Jaitly & Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
    Units", 2015.

    Args:
        tensor: the matrix [rows, columns].
        scale: of the diagonal.

    Returns:
        The tensor.

    >>> identity_(torch.empty(2, 2), scale=0.5).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    nn.init.eye_(tensor)
    with torch.no_grad():
        return tensor.mul_(scale)


def sparse_(tensor: Tensor, connections: int = 15, std: float = 1.0) -> Tensor:
    """Give each unit ``connections`` non-zero incoming weights from N(0, std²).

    A unit is a row of the matrix [outputs, inputs, *kernel]; one with fewer inputs than
    ``connections`` gets all of them. (`torch.nn.init.sparse_` thins out columns instead, that is
    what leaves an input, and by a share.)

    Source: Martens, "Deep Learning via Hessian-free Optimization", ICML 2010, §5.

    Args:
        tensor: the weights [outputs, inputs, *kernel].
        connections: non-zero weights a unit.
        std: their standard deviation.

    Returns:
        The tensor.

    Raises:
        ValueError: ``connections`` is below 1.

    >>> w = sparse_(torch.empty(50, 100), connections=15)
    >>> w.count_nonzero(dim=1).unique().tolist()
    [15]
    """
    if connections < 1:
        raise ValueError(f"connections must be at least 1, not {connections}")
    outputs, inputs = tensor.flatten(1).shape
    incoming = torch.empty(inputs, outputs, dtype=tensor.dtype, device=tensor.device)
    # half a weight less: torch rounds the number of zeros up, past the rounding of the share
    share = max(inputs - connections - 0.5, 0.0) / inputs
    nn.init.sparse_(incoming, sparsity=share, std=std)
    with torch.no_grad():
        return tensor.copy_(incoming.T.reshape(tensor.shape))


def truncated_normal_(tensor: Tensor, std: float = 0.05, cut: float = 2.0) -> Tensor:
    """Fill with N(0, std²) conditioned on [-cut·std, cut·std].

    The cut lowers the variance to std²·(1 - 2·cut·φ(cut) / (2Φ(cut) - 1)), with the standard
    normal's density φ and distribution Φ: 0.774·std² for a cut at 2.

    Args:
        tensor: the weights.
        std: standard deviation before the cut.
        cut: largest absolute value, in standard deviations.

    Returns:
        The tensor.

    >>> w = truncated_normal_(torch.empty(1000, 1000), std=0.1)
    >>> bool(w.abs().max() <= 0.2), round(float(w.var() / 0.1**2), 2)
    (True, 0.77)
    """
    return nn.init.trunc_normal_(tensor, std=std, a=-cut * std, b=cut * std)


Scheme = Callable[[Tensor], object]
"""Fills a matrix [outputs, inputs, *kernel] in place, as the functions of torch.nn.init do."""


class Initializer:
    """Sets W ← gain · W₀, with W₀ drawn by a scheme, in every weight matrix of a model.

    Weight matrices are those of linear, convolutional, recurrent and attention layers, each gate's,
    projection's and group's by itself; norm layers, embeddings and a model's own raw parameters
    keep what they have. Draws come from torch's global generator.

    Args:
        weight: the scheme; None keeps W₀ as the model was built.
        bias: the value of every bias; None keeps them.
        gain: multiplies every weight matrix.
        recurrent: another scheme for the hidden-to-hidden matrices.

    Raises:
        ConfigError: ``bias`` or ``gain`` is not a number; on calling: the scheme refuses its
            numbers, or ``recurrent`` is given and the model has no hidden-to-hidden matrix.

    >>> layer = nn.Linear(3, 1)
    >>> Initializer(torch.nn.init.ones_, bias=0.5, gain=2.0)(layer)
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[2.0, 2.0, 2.0]], [0.5])
    """

    needs_data = False

    def __init__(
        self,
        weight: Scheme | None = None,
        bias: float | None = None,
        gain: float = 1.0,
        recurrent: Scheme | None = None,
    ) -> None:
        self.weight, self.recurrent = weight, recurrent
        self.bias = None if bias is None else check_float("initializer.bias", bias, -math.inf)
        self.gain = check_float("initializer.gain", gain, -math.inf)

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor | None = None) -> None:
        """Set the model's weights in place.

        Args:
            model: the model.
            x: not used; some initializers measure on a batch.

        Raises:
            ConfigError: a scheme refuses its numbers, or has no matrix to draw.
        """
        with writable_weights(model):
            matrices = list(weight_matrices(model))
            if self.recurrent is not None and not any(m.recurrent for m in matrices):
                raise ConfigError(
                    "initializer.recurrent sets hidden-to-hidden weights, and this model has none; "
                    "use model=rnn, lstm or gru, or another initializer"
                )
            for matrix in matrices:
                self.fill_matrix(matrix)
            if self.bias is not None:
                for bias in bias_vectors(model):
                    bias.fill_(self.bias)

    def fill_matrix(self, matrix: WeightMatrix) -> None:
        """Set one weight matrix in place."""
        scheme = self.weight
        if matrix.recurrent and self.recurrent:
            scheme = self.recurrent
        # some of torch's schemes take contiguous tensors only, and views into a parameter are not
        draw = matrix.weight.clone(memory_format=torch.contiguous_format)
        try:
            if scheme is not None:
                scheme(draw)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"initializer.weight does not work: {read_message(error)}") from error
        matrix.weight.copy_(draw * self.gain)


@contextmanager
def writable_weights(model: nn.Module) -> Iterator[None]:
    """Let weights that are computed from others be set in place inside the block.

    What a layer computes with is then what was set: weight norm gets the lengths and directions of
    it, by ``right_inverse`` of its parametrization, and so does every other kind that has one.

    Args:
        model: some of whose layers are parametrized (`torch.nn.utils.parametrize`), or have hooks
            of the older ``torch.nn.utils.weight_norm`` and ``spectral_norm``.

    Raises:
        ConfigError: a parametrization cannot be turned round.
    """
    # within it, a layer gives the same tensor each time it is asked for its weight
    with parametrize.cached():
        before = {(m, n): getattr(m, n) for m in model.modules() for n in computed_names(m)}
        kept = {key: weight.clone() for key, weight in before.items()}
        yield
        changed = {key: w.clone() for key, w in before.items() if not torch.equal(w, kept[key])}
    for (module, name), weight in changed.items():
        try:
            setattr(module, name, weight)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            parametrizations: Any = module.parametrizations
            kind = type(parametrizations[name][0]).__name__
            raise ConfigError(
                f"initializer: {kind} of a {type(module).__name__}'s {name} cannot be given a "
                f"weight to compute ({read_message(error)}): give it a right_inverse, or take "
                "initializer=default"
            ) from error
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            _write_through(module, hook)


def computed_names(module: nn.Module) -> list[str]:
    """Name a module's own tensors that are computed by a parametrization."""
    found: Any = getattr(module, "parametrizations", {})
    return list(found) if parametrize.is_parametrized(module) else []


def _write_through(module: nn.Module, hook: object) -> None:
    """Hand a weight that was set on to the parameters that an older hook computes it from."""
    if isinstance(hook, WeightNorm):
        weight = getattr(module, hook.name)
        getattr(module, f"{hook.name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))
        getattr(module, f"{hook.name}_v").copy_(weight)
    elif isinstance(hook, SpectralNorm):
        getattr(module, f"{hook.name}_orig").copy_(getattr(module, hook.name))


class WeightMatrix(NamedTuple):
    """One linear map inside a model: a view [outputs, inputs, *kernel] into a parameter."""

    weight: Tensor
    recurrent: bool = False


def weight_matrices(model: nn.Module) -> Iterator[WeightMatrix]:
    """Iterate, in order, over the maps of linear, convolutional, recurrent and attention layers.

    A parameter that stacks several maps is taken apart, for their fans are those of the parts: a
    recurrent layer's into its gates, attention's into queries, keys and values, a grouped
    convolution's into its groups. Embeddings, norm layers and a model's own raw parameters are no
    such maps.

    >>> [tuple(m.weight.shape) for m in weight_matrices(nn.GRU(2, 5))]
    [(5, 2), (5, 2), (5, 2), (5, 5), (5, 5), (5, 5)]
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            yield WeightMatrix(module.weight)
        elif isinstance(module, _ConvNd):
            # these store [inputs, outputs, *kernel]
            transposed = isinstance(module, _ConvTransposeNd)
            for group in module.weight.chunk(module.groups):
                yield WeightMatrix(group.transpose(0, 1) if transposed else group)
        elif isinstance(module, nn.RNNBase | RNNCellBase):
            yield from _gate_matrices(module)
        elif isinstance(module, nn.MultiheadAttention):
            yield from _projection_matrices(module)


def _gate_matrices(module: nn.RNNBase | RNNCellBase) -> Iterator[WeightMatrix]:
    """Iterate over the input-to-hidden and hidden-to-hidden matrices, one a gate."""
    for name, parameter in _named_tensors(module):
        if name.startswith("weight_hr"):  # an LSTM's projection of the state: one map, no gates
            yield WeightMatrix(parameter)
        elif name.startswith("weight"):
            for gate in parameter.split(module.hidden_size):
                yield WeightMatrix(gate, recurrent=name.startswith("weight_hh"))


def _projection_matrices(module: nn.MultiheadAttention) -> Iterator[WeightMatrix]:
    """Iterate over the query, key and value matrices; the output's is a Linear of its own."""
    if module.in_proj_weight is not None:
        yield from map(WeightMatrix, module.in_proj_weight.chunk(3))
    else:
        for weight in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight):
            yield WeightMatrix(weight)


def bias_vectors(model: nn.Module) -> Iterator[Tensor]:
    """Iterate over the biases of the layers that `weight_matrices` reads.

    >>> [tuple(b.shape) for b in bias_vectors(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))]
    [(3,)]
    """
    layers = (nn.Linear, _ConvNd, nn.RNNBase, RNNCellBase, nn.MultiheadAttention)
    for module in model.modules():
        if isinstance(module, layers):
            for name, parameter in _named_tensors(module):
                if name.startswith(("bias", "in_proj_bias")):
                    yield parameter


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over a layer's parameters, and over those that it computes, by name."""
    yield from module.named_parameters(recurse=False)
    for name in computed_names(module):
        yield name, getattr(module, name)
