"""How ``vmap`` maps the layers that most of the time goes to: batch last, and one loss for all.

Under ``vmap`` every member has its own weights, so a dense layer becomes K products of matrices.
Written W[o, i] · X[i, n], with the n samples contiguous, they and all that follows run along long
rows; along rows of ten classes the softmax alone took two fifths of a step. The layout is one of
strides only: a member still sees [n, features]. What has no rule here is mapped by torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, is_batchedtensor, peek_interpreter_stack
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from truerisk.engine.stacked.vmap import rnn
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.unfold import unfold_signals

Rule = Callable[..., Any]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b for x [K, n, …, i], W [K, o, i] and b [K, o]."""
    columns = x.flatten(1, -2).transpose(1, 2)
    if bias is None:
        out = torch.bmm(weight, columns)
    else:
        out = torch.baddbmm(bias.unsqueeze(-1), weight, columns)
    return out.transpose(1, 2).unflatten(1, x.shape[1:-1])


def conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int
) -> Tensor:
    """The convolution of x [K, n, c, L] with weight [K, o, c, k], as one product a member.

    Its columns are all positions of all samples: [K, c·k, L′·n].
    """
    columns = unfold_signals(x.permute(0, 2, 3, 1), weight.shape[3], stride, padding, dilation)
    rows, positions = weight.flatten(2), columns.flatten(1, 2).flatten(2)
    if bias is None:
        out = torch.bmm(rows, positions)
    else:
        out = torch.baddbmm(bias[..., None], rows, positions)
    return out.unflatten(2, columns.shape[3:]).permute(0, 3, 1, 2)


def cross_entropy(
    outputs: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    smoothing: Tensor | float = 0.0,
) -> Tensor:
    """The cross-entropy [K, n] of outputs [K, n, C], each member with its own label smoothing.

    ``(1 − ε)·(−log p_y) + ε/C · Σ_c (−log p_c)``, as ``torch.nn.CrossEntropyLoss`` has it.
    """
    scores = outputs.transpose(1, 2)
    w = None if weight is None else weight[0]
    if not isinstance(smoothing, Tensor):
        return F.cross_entropy(scores, y, w, reduction="none", label_smoothing=smoothing)
    log_p = scores.log_softmax(1)
    spread = -(log_p if w is None else log_p * w[:, None]).sum(1)
    share = smoothing.to(log_p.dtype)[:, None]
    plain = F.nll_loss(log_p, y, w, reduction="none")
    return (1 - share) * plain + share / scores.shape[1] * spread


def argmax(outputs: Tensor, dim: int) -> Tensor:
    """The first of the largest entries of a row: torch's own is slow along any other axis."""
    return outputs.transpose(1, 2).max(1).indices


class _Mapped(torch.autograd.Function):
    """Calls a rule on what vmap has stacked: every tensor with the members in front."""

    @staticmethod
    def forward(*_args: Any) -> Any:
        """Never reached: the rules are for stacked tensors only."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep: what the rule does is differentiated by itself."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: Rule, *args: Any) -> tuple[Any, Any]:
        """Bring the members to the front, expanding what they share, and call the rule."""
        pairs = zip(args, in_dims[1:], strict=True)
        stacked = [_front(a, d, info.batch_size) if isinstance(a, Tensor) else a for a, d in pairs]
        out = rule(*stacked)
        return out, (0 if isinstance(out, Tensor) else (0,) * len(out))


def _front(tensor: Tensor, dim: int | None, members: int) -> Tensor:
    if dim is None:
        return tensor.expand(members, *tensor.shape)
    return tensor if dim == 0 else tensor.movedim(dim, 0)


class BatchingRules(TorchFunctionMode):
    """Inside the block, ``vmap`` maps the functions below by the rules of this module.

    ``masks`` draws the members' dropout masks, each from its own stream.
    """

    def __init__(self, masks: DropoutStreams | None = None) -> None:
        super().__init__()
        self.masks = masks

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function, or its rule where its first argument is stacked."""
        kwargs = kwargs or {}
        lift = _LIFTS.get(func)
        if lift is not None and _is_mapping():
            lifted = lift(self, *args, **kwargs)
            if lifted is not NotImplemented:
                return lifted
        return func(*args, **kwargs)


def _is_mapping() -> bool:
    """Whether vmap is the innermost transform: inside a gradient of its own, torch's rules hold."""
    inner = peek_interpreter_stack()
    return inner is not None and inner.key() == TransformType.Vmap


def _linear(_mode: BatchingRules, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not is_batchedtensor(weight) or x.ndim < 2:
        return NotImplemented
    return _Mapped.apply(linear, x, weight, bias)


def _conv1d(
    _mode: BatchingRules,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if groups != 1 or isinstance(padding, str) or x.ndim != 3 or not is_batchedtensor(weight):
        return NotImplemented
    sizes = (s if isinstance(s, int) else s[0] for s in (stride, padding, dilation))
    return _Mapped.apply(conv1d, x, weight, bias, *sizes)


def _cross_entropy(
    _mode: BatchingRules,
    outputs: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: Any = 0.0,
) -> Any:
    plain = reduction == "none" and ignore_index == -100 and outputs.ndim == 2 and y.ndim == 1
    if not is_batchedtensor(outputs) or not plain:
        return NotImplemented
    return _Mapped.apply(cross_entropy, outputs, y, weight, label_smoothing)


def _dropout(
    mode: BatchingRules, x: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    if not training:
        return x
    if mode.masks is None or not is_batchedtensor(x):
        return NotImplemented
    return _Mapped.apply(mode.masks.drop_units, x, p)


def _batch_norm(
    _mode: BatchingRules,
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """In the type of its statistics, which mixed precision keeps wider: torch's rule has none."""
    if mean is None or x.dtype == mean.dtype:
        return NotImplemented
    wide = F.batch_norm(x.to(mean.dtype), mean, var, weight, bias, training, momentum, eps)
    return wide.to(x.dtype)


def _argmax(_mode: BatchingRules, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if dim != -1 or keepdim or x.ndim != 2 or not is_batchedtensor(x):
        return NotImplemented
    return _Mapped.apply(argmax, x, dim)


def _recurrent(rule: Rule) -> Rule:
    def lift(_mode: BatchingRules, x: Tensor, start: Any, weights: Any, *options: Any) -> Any:
        if not isinstance(weights, list | tuple) or not is_batchedtensor(weights[0]):
            return NotImplemented
        starts = start if isinstance(start, tuple | list) else (start,)
        count = len(starts)

        def mapped(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            return rule(x, tensors[:count], tensors[count:], *options)

        out, *last = _Mapped.apply(mapped, x, *starts, *weights)
        return (out, *last)

    return lift


_LIFTS: dict[Any, Rule] = {
    F.linear: _linear,
    F.conv1d: _conv1d,
    F.batch_norm: _batch_norm,
    F.cross_entropy: _cross_entropy,
    F.dropout: _dropout,
    Tensor.argmax: _argmax,
    torch.argmax: _argmax,
    torch.gru: _recurrent(rnn.gru),
    torch.lstm: _recurrent(rnn.lstm),
    torch.rnn_tanh: _recurrent(rnn.rnn_tanh),
    torch.rnn_relu: _recurrent(rnn.rnn_relu),
}
