"""Forward passes that are a fixed, smooth function of the weights and leave nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.optim.swa_utils import update_bn
from torch.overrides import TorchFunctionMode

from truerisk.core.errors import ConfigError


@contextmanager
def deterministic_forward(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Make J a smooth function of the weights alone, which leaves nothing behind in the model.

    * Batch norm while training normalises by the batch, and its running statistics do not move.
    * Spectral normalization keeps its singular vectors, instead of a round of power iteration.
    * Kernels that cannot be differentiated twice are left aside, and norms whose third derivatives
      are wrong (`DifferentiableNorms`).
    * So is a compiled forward pass, which can be differentiated only once.
    * Autocast is off: curvature is computed in the precision of the parameters.
    * The global generator of torch is given back as it was.

    Args:
        model: the model whose forward passes are made inside the block.
        device: where its parameters are.
    """
    # `fork_rng` would otherwise save the generator of every GPU there is
    devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(_detached_counters(model))
        if any(isinstance(m, nn.LayerNorm | _NormBase) for m in model.modules()):
            stack.enter_context(DifferentiableNorms())
        stack.enter_context(_frozen_singular_vectors(model))
        stack.enter_context(_uncompiled(model))
        stack.enter_context(twice_differentiable_kernels(model))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices))
        yield


@contextmanager
def twice_differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Choose kernels that have second derivatives: no fused attention, no recurrent cuDNN."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        # the flag turns off all of cuDNN, convolutions too: only where a layer is recurrent
        if any(isinstance(m, nn.RNNBase) for m in model.modules()):
            stack.enter_context(cudnn.flags(enabled=False))
        yield


@contextmanager
def _uncompiled(model: nn.Module) -> Iterator[None]:
    # torch has no public way to ask for the plain forward pass of a compiled module
    compiled: Any = model._compiled_call_impl
    model._compiled_call_impl = None
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


# --- statistics that move with each forward pass ----------------------------------------------


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Keep what a forward pass in training mode would move.

    Batch norm normalises by the batch, but its running statistics do not move; spectral norm
    divides by the singular value it has, without another round of power iteration.
    """
    with _frozen_running_statistics(model), _frozen_singular_vectors(model):
        yield


@contextmanager
def _frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Update running statistics by a share of zero, and give the counters back."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    counts = [counter.clone() for counter in counters]
    for m in norms:
        # not eval mode, which would normalise by the running statistics instead
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for counter, count in zip(counters, counts, strict=True):
            counter.copy_(count)


@contextmanager
def _detached_counters(model: nn.Module) -> Iterator[None]:
    """Take batch norms their counters: counting in place is refused inside ``torch.func``."""
    counters = [(m, m.num_batches_tracked) for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm, _ in counters:
        # torch then takes `momentum` alone, which counts nothing
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in counters:
            norm.num_batches_tracked = counter


@contextmanager
def _frozen_singular_vectors(model: nn.Module) -> Iterator[None]:
    """Make no rounds of power iteration."""
    spectra = [m for m in model.modules() if isinstance(m, _SpectralNorm)]
    rounds = [m.n_power_iterations for m in spectra]
    for m in spectra:
        m.n_power_iterations = 0
    try:
        yield
    finally:
        for m, n in zip(spectra, rounds, strict=True):
            m.n_power_iterations = n


@torch.no_grad()
def refresh_statistics(
    model: nn.Module, state: Mapping[str, Tensor], inputs: Iterable[Tensor]
) -> Mapping[str, Tensor]:
    """Measure the running statistics of an averaged ``state`` anew on ``inputs``.

    The statistics of an average of weights are not the average of their statistics.

    Args:
        model: the model that the state is one of; it stays as it is.
        state: averaged parameters and buffers, by name.
        inputs: batches of inputs, [n, *input_shape] each.

    Returns:
        The state with new statistics; the same one for a model without batch norm.

    Source:
        Izmailov et al. (2018), "Averaging Weights Leads to Wider Optima", §3.2.
    """
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return state
    # a copy: `update_bn` resets the statistics of the model it is given
    twin = copy.deepcopy(model)
    twin.load_state_dict(dict(state))
    update_bn(inputs, twin)
    return twin.state_dict()


# --- norms that can be differentiated any number of times -------------------------------------


class DifferentiableNorms(TorchFunctionMode):
    """Within it, batch, instance and layer normalization are sums, products and roots.

    The third derivatives of torch's own are wrong without an error: their second derivatives take
    the mean and the deviation for constants when they are differentiated again (PyTorch issues
    175754 and 186256), so that the Hessian of a penalty on input gradients comes out wrong.
    Running statistics are left as they are: moving them in place is refused inside ``torch.func``.

    >>> def slope(x):   # along a shift of x, which changes nothing
    ...     y = F.layer_norm(x, (3,)).pow(3).sum()
    ...     return torch.autograd.grad(y, x, create_graph=True)[0].sum()
    >>> x = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    >>> with DifferentiableNorms():
    ...     curvature = torch.autograd.functional.hessian(slope, x)
    >>> bool(curvature.abs().max() < 1e-12)
    True
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call what stands for ``func`` here."""
        return _REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize x [n, channels, …] a channel over the batch and all positions.

    Raises:
        ConfigError: there is a single value a channel.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    # torch refuses that too, but says nothing of what to change
    if x.numel() == x.shape[1]:
        raise ConfigError(
            "batch norm in training mode needs more than one sample in a batch: cut the data into "
            "larger batches, or call model.eval() to use the running statistics"
        )
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return _normalize(x, (0, *range(2, x.ndim)), shape, weight, bias, eps)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize x [n, channels, …] a sample and channel over all positions."""
    if not use_input_stats:
        return F.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return _normalize(x, tuple(range(2, x.ndim)), shape, weight, bias, eps)


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize x [n, …] over its last dimensions."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _normalize(x, dims, tuple(normalized_shape), weight, bias, eps)


def _normalize(
    x: Tensor,
    dims: tuple[int, ...],
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Compute ``(x − mean) / √(var + ε) · weight + bias``, with the moments over ``dims``."""
    centred = x - x.mean(dims, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
}
