"""Forward passes that are a fixed, smooth function of the weights and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.overrides import TorchFunctionMode

from truerisk.core import rng
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


# --- weights that are measured in place of a model's own ---------------------------------------


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode inside the block; each module then returns to the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # a module may do more than set its flag, such as merge weights for inference
        model.train(modes[0][1])
        # the flag alone: `train()` would reach frozen modules below, which were in eval mode
        for module, mode in modes:
            module.training = mode


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """List the modules that are in eval mode inside a model that trains.

    One that is in eval mode as a whole was put away so, and freezes nothing.
    """
    return [module for module in model.modules() if model.training and not module.training]


@contextmanager
def train_mode(model: nn.Module, frozen: Collection[nn.Module] = ()) -> Iterator[None]:
    """Put a model into training mode inside the block, but for modules that stay in eval mode."""
    with eval_mode(model):
        model.train()
        for module in frozen:
            module.training = False
        yield


def tied_names(model: nn.Module) -> dict[str, str]:
    """Name the parameters and buffers that are others under a second name.

    >>> layer = nn.Linear(2, 2)
    >>> tied_names(nn.Sequential(layer, nn.Tanh(), layer))
    {'2.weight': '0.weight', '2.bias': '0.bias'}
    """
    first: dict[int, str] = {}
    named = model.state_dict(keep_vars=True).items()
    owners = {name: first.setdefault(id(t), name) for name, t in named if isinstance(t, Tensor)}
    return {name: owner for name, owner in owners.items() if name != owner}


def spread_ties(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors that a model has under several names one value under all of them.

    Args:
        model: the model that the state is one of.
        state: parameters and buffers by name, perhaps some of them.

    Returns:
        The state; a tied tensor's value is that of its first name, the same object under each.
    """
    whole, ties = dict(state), tied_names(model)
    for name, owner in ties.items():
        if owner in whole:
            whole[name] = whole[owner]
    if not ties:
        return whole
    # in the model's own order, as checkpoints have it
    return {name: whole[name] for name in model.state_dict() if name in whole} | whole


def averaged_names(model: nn.Module) -> list[str]:
    """Name what an average of a model's weights is one of: parameters and running statistics.

    Each tie counts once. Other buffers are no averages: the singular vectors of spectral norm are
    those of one weight, and a table or a counter is what it is.
    """
    names = [name for name, _ in model.named_parameters()]
    moving = ("running_mean", "running_var")
    norms = {n: m for n, m in model.named_modules() if isinstance(m, _NormBase)}
    for name, norm in norms.items():
        names += [_join(name, key) for key in moving if getattr(norm, key) is not None]
    return names


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def needs_settling(model: nn.Module) -> bool:
    """Tell whether the buffers of a model lag behind its own weights: spectral norm's do."""
    return any(isinstance(m, _SpectralNorm) for m in model.modules())


@torch.no_grad()
def settle_singular_vectors(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the singular vectors that spectral norm divides a state's weights by.

    A round of power iteration a step lags behind weights that move, and an average of such vectors
    is that of no matrix: layers would have norms above the 1 that is promised.

    Args:
        model: the model that the state is one of; it stays as it is.
        state: parameters and buffers by name.

    Returns:
        The state, with the leading singular vectors of its own weights.
    """
    settled = dict(state)
    for name, module in model.named_modules():
        if not isinstance(module, nn.utils.parametrize.ParametrizationList):
            continue
        weight = state.get(f"{name}.original")
        for key, part in module.named_children():
            if isinstance(part, _SpectralNorm) and weight is not None and weight.ndim > 1:
                found = _leading_vectors(part._reshape_weight_to_matrix(weight))
                for vector, value in zip(("_u", "_v"), found, strict=True):
                    settled[f"{name}.{key}.{vector}"] = value.to(weight)
            # a parametrization behind another one sees what that makes of the weight
            if weight is not None and len(module) > 1:
                weight = part(weight)
    return settled


def _leading_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading singular vectors u [m] and v [n] of a matrix [m, n]."""
    wide = _as_double(matrix)
    if not bool(wide.isfinite().all()):  # the run is about to end, for a reason that is told
        return wide[:, 0], wide[0]
    # of the smaller of the two Gram matrices, at a fraction of a full decomposition's price
    if wide.shape[0] <= wide.shape[1]:
        u = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -1]
        return u, nn.functional.normalize(wide.T @ u, dim=0)
    v = torch.linalg.eigh(wide.T @ wide).eigenvectors[:, -1]
    return nn.functional.normalize(wide @ v, dim=0), v


def _as_double(tensor: Tensor) -> Tensor:
    # Apple's GPUs have no double precision
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


class _Moments:
    """Number, mean and sum of squared deviations of what a batch norm is shown, by channel."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def __call__(self, _norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Take in the inputs [n, channels, …] of a forward pass (Chan, Golub & LeVeque 1983)."""
        values = _as_double(args[0].detach()).transpose(0, 1).flatten(1)
        count, mean = values.shape[1], values.mean(1)
        squares = (values - mean[:, None]).square().sum(1)
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def moving_norms(model: nn.Module, frozen: Collection[nn.Module] = ()) -> dict[str, _BatchNorm]:
    """Return the batch norms whose statistics move in training, by name.

    Args:
        model: in whichever mode.
        frozen: modules that are in eval mode while it trains.
    """
    named = model.named_modules()
    norms = {name: m for name, m in named if isinstance(m, _BatchNorm) and m not in frozen}
    return {name: m for name, m in norms.items() if m.running_mean is not None}


@torch.no_grad()
def refuses_single(model: nn.Module, x: Tensor) -> bool:
    """Tell whether a model cannot train on a single sample, as batch norm has no variance there.

    Args:
        model: it stays as it is.
        x: the sample, [1, *input_shape].
    """
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return False
    like = next(model.parameters())
    x = x.to(like.device, like.dtype if x.is_floating_point() else None)
    state = {name: b.detach().clone() for name, b in model.named_buffers()}
    with ExitStack() as stack:
        stack.enter_context(_uncompiled(model))
        stack.enter_context(rng.fork_seeded(0))
        stack.enter_context(train_mode(model, frozen_modules(model)))
        try:
            functional_call(model, state, (x,))
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
        except Exception:  # whatever it is, the first step tells of it
            return False
    return False


@torch.no_grad()
def refresh_statistics(
    model: nn.Module,
    state: Mapping[str, Tensor],
    inputs: Iterable[Tensor],
    seed: int = 0,
    frozen: Collection[nn.Module] = (),
) -> dict[str, Tensor]:
    """Measure the running statistics of other weights than a model's own anew.

    The statistics of an average of weights are not the average of their statistics. They are the
    moments of all the inputs that a batch norm sees, whatever blocks these come in; in the forward
    pass each block is normalized by itself, as in training, so a block should be a random part.

    Args:
        model: it stays as it is.
        state: parameters and buffers by name.
        inputs: batches of inputs, [n, *input_shape] each.
        seed: of dropout masks and other draws, which come from a stream of their own.
        frozen: modules that are in eval mode while it trains.

    Returns:
        The state, with new statistics where a batch norm's move in training.

    Source:
        Izmailov et al. (2018), "Averaging Weights Leads to Wider Optima", §3.2.
    """
    norms = moving_norms(model, frozen)
    if not norms:
        return dict(state)
    whole = {name: b.detach().clone() for name, b in model.named_buffers()}
    # cloned, as batch norm in training mode moves its statistics in place
    whole |= {name: t.clone() if name in whole else t for name, t in state.items()}
    whole = spread_ties(model, whole)
    moments = {name: _Moments() for name in norms}
    with ExitStack() as stack:
        stack.enter_context(train_mode(model, frozen))
        stack.enter_context(_frozen_singular_vectors(model))
        stack.enter_context(_uncompiled(model))
        stack.enter_context(rng.fork_seeded(seed))
        for name, norm in norms.items():
            stack.callback(norm.register_forward_pre_hook(moments[name]).remove)
        for x in inputs:
            functional_call(model, whole, (x,))
    fresh = dict(state)
    for name, seen in moments.items():
        if seen.count:
            like = whole[_join(name, "running_mean")]
            fresh[_join(name, "running_mean")] = seen.mean.to(like)
            fresh[_join(name, "running_var")] = (seen.squares / max(1, seen.count - 1)).to(like)
    return fresh


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


def _with_statistics_last(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Take arguments in the order of torch's own operators, which `F` calls."""

    def called(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *rest: Any,
        **more: Any,
    ) -> Tensor:
        own, more = rest[:3], {k: v for k, v in more.items() if k != "cudnn_enabled"}
        return norm(x, running_mean, running_var, weight, bias, *own, **more)

    return called


def _layer_norm_operator(x: Tensor, shape: Sequence[int], *rest: Any, **more: Any) -> Tensor:
    more = {k: v for k, v in more.items() if k != "cudnn_enable"}
    return _layer_norm(x, shape, *rest[:3], **more)


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    torch.batch_norm: _with_statistics_last(_batch_norm),
    torch.instance_norm: _with_statistics_last(_instance_norm),
    torch.layer_norm: _layer_norm_operator,
}
