"""The loss's curvature in the outputs, its roots, and what they are at the layers below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.batch import Batch
from truerisk.core.curvature_oracle import CaptureRequest, LayerCapture
from truerisk.core.errors import ConfigError
from truerisk.core.hooks import forward_hooks
from truerisk.objective.objective import Objective, ObjectiveValue


def curvature_roots(
    surrogate: Any, losses: Callable[[Tensor], Tensor], outputs: Tensor, exact: bool
) -> Tensor:
    """Compute vectors v with ``Σₖ v vᵀ = ∇²l`` in the outputs of each of n samples.

    Pulled back to the parameters they give the Gauss–Newton matrix, which for a loss −log p(y | f)
    of an exponential family is the Fisher matrix (Martens 2020, §9). ``exact`` takes as many as
    there are outputs; otherwise there is one, random, with that expectation: the loss's gradient at
    a target drawn from the model's own prediction:

    | loss                | target                                        | v          |
    |---------------------|-----------------------------------------------|------------|
    | cross-entropy       | class ŷ with probability p = softmax(f)       | p − e_ŷ    |
    | logistic, K outputs | ŷₖ = 1 with probability pₖ = 1/(1 + exp(−fₖ)) | (p − ŷ)/√K |
    | squared, K outputs  | ŷ = f + √(K/2)·ε with ε standard Gaussian     | √(2/K)·ε   |

    For any other loss, ∇²l is found by differentiation and its root by an eigendecomposition,
    without its negative part; the random vector combines the root's columns with random signs.

    Args:
        surrogate: the project's surrogate, or any loss.
        losses: per-sample losses [n] as a function of the outputs.
        outputs: f(x; w), [n, outputs], without a graph.
        exact: all of them, or one random.

    Returns:
        v [k, n, outputs], with k the number of outputs or 1.

    Raises:
        ConfigError: a sample has several rows of outputs, as sequences of tokens do.
    """
    if outputs.ndim != 2:
        raise ConfigError(
            f"curvature in the outputs needs them as [n, K], and the model's are "
            f"{tuple(outputs.shape)}: take an optimizer without Fisher factors, such as adam or "
            "gauss_newton"
        )
    loss = getattr(surrogate, "loss", surrogate)
    if getattr(surrogate, "class_weight", None) is not None:
        return _numerical_roots(losses, outputs, exact)  # each sample's by its own factor
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None:
        return _categorical_roots(outputs.softmax(-1), exact)
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.weight is None and loss.pos_weight is None:
        # the mean over K outputs is K independent likelihoods with 1/K of the weight each: the
        # gradients are scaled to have ∇²l as covariance
        p = outputs.sigmoid()
        v = (p * (1 - p)).sqrt() if exact else p - torch.bernoulli(p)
        return _separate_roots(v / outputs.shape[-1] ** 0.5, exact)
    if isinstance(loss, nn.MSELoss):
        unit = torch.ones_like(outputs) if exact else torch.randn_like(outputs)
        return _separate_roots(unit * (2 / outputs.shape[-1]) ** 0.5, exact)
    return _numerical_roots(losses, outputs, exact)


def _categorical_roots(p: Tensor, exact: bool) -> Tensor:
    """Σ p (e − p)(e − p)ᵀ over the classes is diag(p) − ppᵀ."""
    if not exact:
        drawn = torch.multinomial(p, 1)
        return p.scatter_add(-1, drawn, -torch.ones_like(p[..., :1])).unsqueeze(0)
    corners = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
    return (p - corners.unsqueeze(1)) * p.T.unsqueeze(-1).sqrt()


def _separate_roots(v: Tensor, exact: bool) -> Tensor:
    """Take outputs that do not interact one at a time, or all at once where v is random."""
    return torch.diag_embed(v).movedim(-1, 0) if exact else v.unsqueeze(0)


def _numerical_roots(losses: Callable[[Tensor], Tensor], outputs: Tensor, exact: bool) -> Tensor:
    # symmetric but not always semidefinite: its negative part has no real root
    values, vectors = torch.linalg.eigh(loss_hessians(losses, outputs))
    roots = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # [n, outputs, k]
    if exact:
        return roots.movedim(-1, 0)
    signs = torch.randint(0, 2, values.shape, device=values.device).to(values) * 2 - 1
    return (roots * signs.unsqueeze(-2)).sum(-1).unsqueeze(0)


def loss_hessians(losses: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """Return ∇²l in the outputs of each sample, [n, outputs, outputs].

    Args:
        losses: per-sample losses [n] as a function of the outputs.
        outputs: where, [n, outputs].

    >>> loss_hessians(lambda f: (f**2).sum(1), torch.zeros(1, 2))
    tensor([[[2., 0.],
             [0., 2.]]])
    """
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(losses(outputs).sum(), outputs, create_graph=True)
    if not slopes.requires_grad:
        return outputs.new_zeros(*outputs.shape, outputs.shape[-1])
    rows = [
        torch.autograd.grad(
            slope.sum(), outputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        for slope in slopes.unbind(-1)
    ]
    return torch.stack(rows, dim=-2)


class LayerTaps:
    """Records the inputs and outputs of layers in the first forward pass of a model.

    A layer called several times has an entry for each call. What later passes do, such as those of
    a penalty that looks at other inputs, is not recorded.

    Args:
        model: the model that is called.
        layers: layers inside it.

    >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(inplace=True))
    >>> taps = LayerTaps(model, [model[0]])
    >>> with taps.recording():
    ...     first, second = model(torch.ones(3, 1)), model(torch.ones(4, 1))
    >>> [tuple(x.shape) for x in taps.inputs[model[0]]], len(taps.outputs[model[0]])
    ([(3, 1)], 1)
    """

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module]) -> None:
        self.model, self.layers = model, list(layers)
        self.inputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in self.layers}
        self.outputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in self.layers}
        self._first_pass = True

    def recording(self) -> AbstractContextManager[None]:
        """Record inside the block."""
        if not self.layers:
            return forward_hooks([])
        # the model's own hook comes last: a layer may be the model itself
        hooks = [(layer, self._record_call) for layer in self.layers]
        return forward_hooks([*hooks, (self.model, self._end_pass)])

    def _record_call(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        if not self._first_pass:
            return None
        self.inputs[layer].append(args[0].detach())
        self.outputs[layer].append(output)
        # a copy goes on, so that an activation that works in place leaves the recorded one alone
        return output.clone()

    def _end_pass(self, *_: Any) -> None:
        self._first_pass = False


def capture_layers(
    request: CaptureRequest,
    taps: LayerTaps,
    objective: Objective,
    value: ObjectiveValue,
    batch: Batch,
    share: float,
) -> LayerCapture:
    """Pull the roots of the loss's curvature back to the layers and parameters asked about.

    Args:
        request: the layers and parameters.
        taps: what was recorded of the layers in the forward pass.
        objective: J.
        value: J on the batch, with the graph of that forward pass.
        batch: n samples.
        share: of the batch in the step.
    """
    outputs = value.outputs

    def losses_at(f: Tensor) -> Tensor:
        return objective.losses(f, batch)

    def pull_back(to: Sequence[Tensor], exact: bool) -> list[tuple[Tensor, ...]]:
        """Multiply the transposed Jacobian of the outputs, by ``to``, with each root."""
        if not to:
            return []
        roots = curvature_roots(objective.surrogate, losses_at, outputs.detach(), exact)
        return [
            torch.autograd.grad(
                outputs, to, v, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for v in roots
        ]

    layer_outputs = [output for layer in request.layers for output in taps.outputs[layer]]
    by_root = pull_back(layer_outputs, request.exact)
    stacked = iter([torch.stack(parts) for parts in zip(*by_root, strict=True)])
    by_layer = {layer: [next(stacked) for _ in taps.outputs[layer]] for layer in request.layers}
    gradients = [part for parts in pull_back(request.params, False) for part in parts]
    return LayerCapture(share, len(batch), taps.inputs, by_layer, gradients)
