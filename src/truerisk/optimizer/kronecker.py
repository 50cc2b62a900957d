"""A layer's block of the Gauss–Newton matrix as a Kronecker product."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from truerisk.core.curvature_oracle import LayerCapture
from truerisk.core.errors import ConfigError

Convolution = nn.Conv1d | nn.Conv2d
Norm = nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d | nn.BatchNorm2d


def has_kronecker_form(layer: nn.Module) -> bool:
    """Tell whether a layer's block has a Kronecker form: dense, convolutional, embedding.

    >>> has_kronecker_form(nn.Conv1d(4, 4, 3)), has_kronecker_form(nn.Conv1d(4, 4, 3, groups=2))
    (True, False)
    """
    if isinstance(layer, Convolution):
        return layer.groups == 1
    return isinstance(layer, nn.Linear | nn.Embedding)


class KroneckerBlock:
    """The weight and bias of one layer, ``s = W ā``, as far as they are trained.

    With ā the layer's input, 1 appended for the bias, and g the derivative with respect to s of a
    root of the loss's curvature, the block of the Gauss–Newton matrix is ``E[āāᵀ ⊗ ggᵀ]``, taken to
    be ``A ⊗ G``, A = E[āāᵀ], G = E[ggᵀ] (Martens & Grosse 2015, §3). A layer that is used at T
    places of a sample, as a convolution is at its positions (there ā is a patch of the input) or a
    dense layer at the steps of a sequence, has

        A = E[Σₜ āₜāₜᵀ],  G = E[Σₜ gₜgₜᵀ] / T          (Grosse & Martens 2016, eq. 27 and 28)

    For an embedding ā is a unit vector, and A its diagonal alone.
    """

    def __init__(self, layer: nn.Module, trained: Callable[[Tensor], bool]) -> None:
        self.layer = layer
        weight, bias = layer.weight, getattr(layer, "bias", None)
        self.weight = weight if isinstance(weight, Tensor) and trained(weight) else None
        self.bias = bias if isinstance(bias, Tensor) and trained(bias) else None

    @property
    def params(self) -> list[Tensor]:
        """The trained ones, weight first."""
        return [p for p in (self.weight, self.bias) if p is not None]

    def factors(self, inputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return A and G over one batch.

        Args:
            inputs: of each call of the layer, [n, …].
            slopes: of each call, the derivatives [k, *output] of the k roots.
        """
        samples = len(inputs[0])
        g = torch.cat([self._output_rows(s) for s in slopes], dim=2)  # [k, n, places, outputs]
        outer = torch.einsum("knto,kntp->op", g, g) / (samples * g.shape[2])
        if isinstance(self.layer, nn.Embedding):
            counts = torch.cat([x.flatten() for x in inputs]).bincount(
                minlength=self.layer.num_embeddings
            )
            return counts.to(outer) / samples, outer
        a = torch.cat([self._input_rows(x) for x in inputs], dim=1)  # [n, places, inputs]
        return torch.einsum("nti,ntj->ij", a, a) / samples, outer

    def _input_rows(self, x: Tensor) -> Tensor:
        a = extract_patches(self.layer, x) if isinstance(self.layer, Convolution) else x
        a = a.reshape(len(x), -1, a.shape[-1])
        parts = [a] if self.weight is not None else []
        parts += [torch.ones_like(a[..., :1])] if self.bias is not None else []
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def _output_rows(self, s: Tensor) -> Tensor:
        if isinstance(self.layer, Convolution):
            return s.flatten(3).transpose(2, 3)
        return s.reshape(*s.shape[:2], -1, s.shape[-1])

    def matrix(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors in the shapes of ``params`` as one matrix [outputs, inputs (+ 1)]."""
        weight = isinstance(self.layer, nn.Embedding)
        # an embedding's weight is [tokens, outputs], a dense layer's [outputs, inputs]
        columns = [p.T if weight else p.reshape(len(p), -1) for p in parts]
        return torch.cat(columns, dim=1)

    def tensors(self, matrix: Tensor) -> list[Tensor]:
        """The inverse of ``matrix``."""
        if isinstance(self.layer, nn.Embedding):
            return [matrix.T]
        parts = matrix.split([p[0].numel() for p in self.params], dim=1)
        return [part.reshape(p.shape) for part, p in zip(parts, self.params, strict=True)]


def extract_patches(layer: Any, x: Tensor) -> Tensor:
    """Extract what a convolution's kernel sees: [n, positions, channels · window].

    Args:
        layer: the convolution.
        x: its input [n, channels, …].

    >>> extract_patches(nn.Conv1d(1, 1, 2), torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1., 2.],
             [2., 3.]]])
    """
    # `unfold` pads with zeros alone, so the layer's own padding comes first
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    # `unfold` takes images only: a signal is one of a single row
    if x.ndim == 3:
        x = x.unsqueeze(2)
    pair = [
        (1, *value) if len(value) == 1 else value
        for value in (layer.kernel_size, layer.dilation, layer.stride)
    ]
    kernel, dilation, stride = pair
    return functional.unfold(x, kernel, dilation=dilation, stride=stride).transpose(1, 2)


def invert_factors(a: Tensor, g: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return (A + π√λ I)⁻¹ and (G + √λ/π I)⁻¹, with π² = (tr A / dim A) / (tr G / dim G).

    Factored Tikhonov damping (Martens & Grosse 2015, §6.3); a diagonal A stays a diagonal.

    Args:
        a: A, or its diagonal.
        g: G.
        damping: λ.

    >>> one, two = invert_factors(torch.eye(1), torch.eye(1), 1.0)
    >>> one.item(), two.item()
    (0.5, 0.5)
    """
    sizes = [(t.sum() if t.ndim == 1 else t.trace()).item() / len(t) for t in (a, g)]
    pi = math.sqrt(sizes[0] / sizes[1]) if min(sizes) > 0 else 1.0
    root = math.sqrt(damping)
    return _invert_damped(a, pi * root), _invert_damped(g, root / pi)


def _invert_damped(matrix: Tensor, shift: float) -> Tensor:
    if matrix.ndim == 1:
        return 1 / (matrix + shift)
    exact = matrix
    if matrix.device.type != "mps":  # Apple's GPU has no double precision
        exact = matrix.double()
    factor, failed = torch.linalg.cholesky_ex(exact + shift * torch.eye(len(matrix)).to(exact))
    if not failed:
        return torch.cholesky_inverse(factor).to(matrix)
    values, vectors = torch.linalg.eigh(exact)  # rounding made some of them negative
    return ((vectors / (values.clamp_min(0) + shift)) @ vectors.mT).to(matrix)


def norm_diagonal(layer: Any, inputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> list[Tensor]:
    """Return the diagonals of a norm layer's blocks: E[(Σ g x̂)²] and E[(Σ g)²].

    The first is that of the scale, the second that of the shift.

    x̂ is the normalized input, sums are over a sample's places, and g [k, *output] as in
    `KroneckerBlock`.
    """
    n = len(inputs[0])
    by_sample: list[Any] = [0, 0]
    for x, g in zip(inputs, slopes, strict=True):
        for index, product in enumerate((g * normalize_input(layer, x), g)):
            by_sample[index] = by_sample[index] + _sum_places(layer, product)
    return [(d**2).sum((0, 1)).view(layer.weight.shape) / n for d in by_sample]


def _sum_places(layer: Any, g: Tensor) -> Tensor:
    """[k, n, …] summed over places: [k, n, parameters]."""
    if isinstance(layer, nn.LayerNorm):
        return g.reshape(*g.shape[:2], -1, layer.weight.numel()).sum(2)
    if g.ndim > 3:
        return g.flatten(3).sum(3)
    return g


def normalize_input(layer: Any, x: Tensor) -> Tensor:
    """Return what a norm layer makes of x before scale and shift.

    Args:
        layer: the norm layer.
        x: its input [n, …].
    """
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(x, layer.num_groups, eps=layer.eps)
    # without statistics, as giving them would move them once more
    if layer.training or layer.running_mean is None:
        return functional.batch_norm(x, None, None, training=True, eps=layer.eps)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)


class CurvaturePartition(NamedTuple):
    """Which parameters are in Kronecker blocks, which in norm layers, and the others."""

    blocks: list[KroneckerBlock]
    norms: list[Any]
    others: list[Tensor]


def partition_parameters(model: nn.Module, params: Sequence[Tensor]) -> CurvaturePartition:
    """Divide the parameters by the layers they belong to; one that several share is an other.

    Args:
        model: the layers.
        params: what is trained.
    """
    ours = {id(p) for p in params} - shared_parameters(model)
    blocks, norms = [], []
    for module in called_modules(model):
        if has_kronecker_form(module):
            block = KroneckerBlock(module, lambda p: id(p) in ours)
            if block.params:
                blocks.append(block)
        elif isinstance(module, Norm) and {id(p) for p in norm_params(module)} & ours:
            norms.append(module)
    inside = {id(p) for block in blocks for p in block.params}
    inside |= {id(p) for norm in norms for p in norm_params(norm)}
    return CurvaturePartition(blocks, norms, [p for p in params if id(p) not in inside])


def called_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The modules below one, but for those inside torch's attention, which reads their weights."""
    yield module
    if not isinstance(module, nn.MultiheadAttention):
        for child in module.children():
            yield from called_modules(child)


def shared_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters that are found at more than one place."""
    found = Counter(id(p) for m in set(model.modules()) for p in m.parameters(recurse=False))
    return {key for key, count in found.items() if count > 1}


def unused_layer_error(layer: nn.Module) -> ConfigError:
    """The error for a layer whose parameters are used without its forward pass."""
    return ConfigError(
        f"optimizer=kfac sees what goes through a layer when it is called, and {layer} never is, "
        "though its parameters are used: call the layer itself in the model's forward, or take "
        "optimizer=newton_cg"
    )


def norm_params(layer: Any) -> list[Tensor]:
    """A norm layer's scale and shift, where it has both."""
    return [p for p in (layer.weight, layer.bias) if p is not None]


def curvature_statistics(
    layout: CurvaturePartition, capture: LayerCapture
) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Yield the curvature statistics of one micro-batch: parameter, name and value.

    Args:
        layout: which parameters have which kind of curvature.
        capture: what was captured.
    """
    for block in layout.blocks:
        inputs, slopes = capture.inputs[block.layer], capture.output_gradients[block.layer]
        if inputs:
            a, g = block.factors(inputs, slopes)
            yield block.params[0], "input", a
            yield block.params[0], "output", g
    for layer in layout.norms:
        inputs, slopes = capture.inputs[layer], capture.output_gradients[layer]
        diagonals = norm_diagonal(layer, inputs, slopes)
        yield from zip(norm_params(layer), ["diagonal"] * 2, diagonals, strict=False)
    for param, gradient in zip(layout.others, capture.gradients, strict=True):
        yield param, "diagonal", gradient**2 / capture.samples
