"""Normalization layers that can be differentiated any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from truerisk.core.errors import ConfigError


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Normalization in plain operations, and no running statistics that move.

    torch's own batch, instance and layer norm take their mean and deviation for constants from the
    third derivative on, so that the Hessian of a penalty on input gradients comes out wrong without
    an error; and batch norm updates its running statistics in place, which ``torch.func`` refuses.
    """
    layers = [(m, f) for m in model.modules() if (f := _forward(m)) is not None]
    counters = [(m, m.num_batches_tracked) for m in model.modules() if isinstance(m, _BatchNorm)]
    for layer, forward in layers:
        layer.forward = partial(forward, layer)
    for norm, _ in counters:
        # a penalty that looks again would count back in place
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.forward
        for norm, counter in counters:
            norm.num_batches_tracked = counter


def _forward(layer: nn.Module) -> Callable[[Any, Tensor], Tensor] | None:
    if isinstance(layer, nn.LayerNorm):
        return layer_norm
    if not isinstance(layer, _NormBase) or not (layer.training or layer.running_mean is None):
        return None
    return batch_norm if isinstance(layer, _BatchNorm) else instance_norm


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """``(x − mean) / √(variance + ε) · weight + bias`` over the last dimensions of [n, …]."""
    normal = _normal(x, range(-len(layer.normalized_shape), 0), layer.eps)
    normal = normal if layer.weight is None else normal * layer.weight
    return normal if layer.bias is None else normal + layer.bias


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """The same, of [n, channels, …] a channel over the batch and all positions.

    Raises:
        ConfigError: there is a single value a channel.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    if x.numel() == x.shape[1]:
        raise ConfigError(
            "batch norm in training mode needs more than one sample in a batch: cut the data into "
            "larger batches, or call model.eval() to use the running statistics"
        )
    return _scaled(layer, _normal(x, axes, layer.eps))


def instance_norm(layer: _NormBase, x: Tensor) -> Tensor:
    """The same, of [n, channels, …] a sample and channel over all positions."""
    return _scaled(layer, _normal(x, range(2, x.ndim), layer.eps))


def _normal(x: Tensor, axes: Any, eps: float) -> Tensor:
    x = x - x.mean(tuple(axes), keepdim=True)
    return x * (x.square().mean(tuple(axes), keepdim=True) + eps).rsqrt()


def _scaled(layer: Any, x: Tensor) -> Tensor:
    shape = [1, -1] + [1] * (x.ndim - 2)
    x = x if layer.weight is None else x * layer.weight.view(shape)
    return x if layer.bias is None else x + layer.bias.view(shape)
