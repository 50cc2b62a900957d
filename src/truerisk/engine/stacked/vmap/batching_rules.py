"""Rules by which ``vmap`` maps the layers that take most of the time: samples last in memory.

What has no rule here is mapped by torch's own.
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
    """Compute x Wᵀ + b.

    Args:
        x: [K, n, …, i].
        weight: W [K, o, i].
        bias: b [K, o].

    Returns:
        [K, n, …, o], whose n samples are contiguous in memory.
    """
    # W[o, i] · X[i, n] rather than X · Wᵀ: this and all that follows runs along rows of n samples.
    # Along rows of ten classes the softmax alone took two fifths of a step. Only the strides
    # differ: a member still sees [n, features].
    columns = x.flatten(1, -2).transpose(1, 2)
    if bias is None:
        out = torch.bmm(weight, columns)
    else:
        out = torch.baddbmm(bias.unsqueeze(-1), weight, columns)
    return out.transpose(1, 2).unflatten(1, x.shape[1:-1])


def conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int
) -> Tensor:
    """Convolve signals, by one product a member.

    Args:
        x: [K, n, c, L].
        weight: [K, o, c, k].
        bias: [K, o].
        stride: positions between two windows.
        padding: zeros at either end.
        dilation: positions between two taps of a window.

    Returns:
        [K, n, o, L′], whose n samples are contiguous in memory.
    """
    # the columns [K, c·k, L′·n] are all positions of all samples
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
    """Compute ``(1 − ε)·(−log p_y) + ε/C · Σ_c (−log p_c)``, as `torch.nn.CrossEntropyLoss` does.

    Args:
        outputs: [K, n, C].
        y: labels [K, n].
        weight: of the classes, [K, C], the same for all members.
        smoothing: ε, one for all or one a member, [K].

    Returns:
        The loss of each sample, [K, n].
    """
    scores = outputs.transpose(1, 2)
    w = None
    if weight is not None:
        w = weight[0]
    if not isinstance(smoothing, Tensor):
        return F.cross_entropy(scores, y, w, reduction="none", label_smoothing=smoothing)
    # torch's own takes ε as a plain number
    log_p = scores.log_softmax(1)
    spread = -(log_p if w is None else log_p * w[:, None]).sum(1)
    share = smoothing.to(log_p.dtype)[:, None]
    plain = F.nll_loss(log_p, y, w, reduction="none")
    return (1 - share) * plain + share / scores.shape[1] * spread


def argmax(outputs: Tensor, dim: int) -> Tensor:
    """Find the first of the largest outputs of each sample: [K, n] for [K, n, C]."""
    # `max` over the axis before the last keeps to the layout of `linear`; `argmax` over the last
    # is slow on a tensor whose last axis is not contiguous
    return outputs.transpose(1, 2).max(1).indices


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, shared: bool
) -> Tensor:
    """Compute ``softmax(q kᵀ/√d) v`` of all members' samples by one call of the fused kernel.

    Args:
        q: queries [K, n, heads, T, d].
        k: keys, perhaps of fewer heads.
        v: values, of as many.
        mask: which places each may look at, [K, n, 1, T, T]; None for all.
        causal: whether those are the ones up to it.
        shared: whether heads of queries share those of keys and values.
    """
    if mask is not None:
        mask = mask.flatten(0, 1)
    members, samples = q.shape[:2]
    # members are as samples to the kernel, for which torch has no batching rule
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, enable_gqa=shared)
    return mixed.unflatten(0, (members, samples))


class _CallRule(torch.autograd.Function):
    """Calls a rule on the tensors that vmap has stacked, each with the members in front."""

    @staticmethod
    def forward(*_args: Any) -> Any:
        """Never reached: the rules are for stacked tensors only."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: what the rule does is differentiated by itself."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: Rule, *args: Any) -> tuple[Any, Any]:
        """Bring the members to the front, expanding what they share, and call the rule."""
        pairs = zip(args, in_dims[1:], strict=True)
        stacked = [_to_front(a, d, info.batch_size) for a, d in pairs]
        out = rule(*stacked)
        return out, (0 if isinstance(out, Tensor) else (0,) * len(out))


def _to_front(argument: Any, dim: int | None, members: int) -> Any:
    """Return a tensor with the members as its first axis; anything else as it is."""
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(members, *argument.shape)
    # no view where none is needed: each one would be played back at every step
    return argument if dim == 0 else argument.movedim(dim, 0)


class BatchingRules(TorchFunctionMode):
    """Inside the block, ``vmap`` maps the functions of ``_RULES`` by the rules of this module.

    Args:
        dropout: streams of dropout masks; without them torch draws from its global generator.
    """

    def __init__(self, dropout: DropoutStreams | None = None) -> None:
        super().__init__()
        self.dropout = dropout

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function, or its rule where its arguments are stacked."""
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        if rule is not None and _is_innermost_vmap():
            result = rule(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def _is_innermost_vmap() -> bool:
    """Tell whether vmap is the innermost transform: inside another one, torch's own rules hold."""
    # a rule sees through one level of wrapping only; a penalty on the gradient with respect to the
    # inputs has a `torch.func.grad` inside
    inner = peek_interpreter_stack()
    return inner is not None and inner.key() == TransformType.Vmap


def _linear(_mode: BatchingRules, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not is_batchedtensor(weight) or x.ndim < 2:
        return NotImplemented
    return _CallRule.apply(linear, x, weight, bias)


def _attend(
    _mode: BatchingRules,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    plain = dropout_p == 0 and scale is None and q.ndim == 4
    if not (plain and is_batchedtensor(q) and is_batchedtensor(k) and is_batchedtensor(v)):
        return NotImplemented
    return _CallRule.apply(attend, q, k, v, attn_mask, is_causal, enable_gqa)


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
    return _CallRule.apply(conv1d, x, weight, bias, *sizes)


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
    return _CallRule.apply(cross_entropy, outputs, y, weight, label_smoothing)


def _dropout(
    mode: BatchingRules, x: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    if not training:
        return x
    if mode.dropout is None or not is_batchedtensor(x):
        return NotImplemented
    return _CallRule.apply(mode.dropout.drop_units, x, p)


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
    """Normalize in the dtype of the statistics, which mixed precision keeps wider."""
    # torch's batching rule takes no mixed dtypes (pytorch/pytorch#184890); all else is left to it
    if mean is None or x.dtype == mean.dtype:
        return NotImplemented
    wide = F.batch_norm(x.to(mean.dtype), mean, var, weight, bias, training, momentum, eps)
    return wide.to(x.dtype)


def _argmax(_mode: BatchingRules, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if dim != -1 or keepdim or x.ndim != 2 or not is_batchedtensor(x):
        return NotImplemented
    return _CallRule.apply(argmax, x, dim)


def _make_recurrent_rule(rule: Rule) -> Rule:
    """Make a rule for one of torch's recurrent functions, which take their tensors in lists."""

    def call_rule(_mode: BatchingRules, x: Tensor, start: Any, weights: Any, *options: Any) -> Any:
        if not isinstance(weights, list | tuple) or not is_batchedtensor(weights[0]):
            return NotImplemented
        starts = start if isinstance(start, tuple | list) else (start,)
        count = len(starts)

        # an autograd Function sees tensors only where they are arguments of their own
        def mapped(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            return rule(x, tensors[:count], tensors[count:], *options)

        out, *last = _CallRule.apply(mapped, x, *starts, *weights)
        return (out, *last)

    return call_rule


_RULES: dict[Any, Rule] = {
    # the functions that layers call, which a mode sees before vmap takes them apart
    F.linear: _linear,
    F.scaled_dot_product_attention: _attend,
    F.conv1d: _conv1d,
    F.batch_norm: _batch_norm,
    F.cross_entropy: _cross_entropy,
    F.dropout: _dropout,
    Tensor.argmax: _argmax,
    torch.argmax: _argmax,
    torch.gru: _make_recurrent_rule(rnn.gru),
    torch.lstm: _make_recurrent_rule(rnn.lstm),
    torch.rnn_tanh: _make_recurrent_rule(rnn.rnn_tanh),
    torch.rnn_relu: _make_recurrent_rule(rnn.rnn_relu),
}
