"""Normalizations in elementary operations, for derivatives beyond the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class WrittenOut(TorchFunctionMode):
    """Within it, batch and layer normalization are sums, products and roots.

    The third derivatives of torch's own are wrong without an error: their second derivatives take
    the mean and the deviation for constants when they are differentiated again (PyTorch issues
    175754 and 186256). Running statistics are left as they are.

    >>> def slope(x):   # along a shift of x, which changes nothing
    ...     y = F.layer_norm(x, (3,)).pow(3).sum()
    ...     return torch.autograd.grad(y, x, create_graph=True)[0].sum()
    >>> x = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    >>> with WrittenOut():
    ...     curvature = torch.autograd.functional.hessian(slope, x)
    >>> bool(curvature.abs().max() < 1e-12)
    True
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call what stands for ``func`` here."""
        return INSTEAD.get(func, func)(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, but for the running statistics."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return scaled(x, (0, *range(2, x.dim())), shape, weight, bias, eps)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.layer_norm`."""
    dims = tuple(range(-len(normalized_shape), 0))
    return scaled(x, dims, tuple(normalized_shape), weight, bias, eps)


def scaled(
    x: Tensor,
    dims: tuple[int, ...],
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """``(x − mean) / √(var + ε) · weight + bias``, with the moments over ``dims``."""
    centred = x - x.mean(dims, keepdim=True)
    found = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    found = found if weight is None else found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


INSTEAD: dict[Any, Callable[..., Any]] = {F.batch_norm: batch_norm, F.layer_norm: layer_norm}
