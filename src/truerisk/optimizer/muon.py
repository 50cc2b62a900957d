"""Muon for the matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from truerisk.core.errors import ConfigError

MATRIX = ("lr", "momentum", "nesterov", "weight_decay", "ns_steps", "adjust_lr_fn")
REST = {
    "adamw_lr": "lr",
    "adamw_betas": "betas",
    "adamw_eps": "eps",
    "weight_decay": "weight_decay",
}
"""A parameter group's numbers, as each of the two optimizers reads and names them."""


class Muon(Optimizer):
    """Muon on the matrices (parameters of two dimensions), AdamW on all other parameters.

    A matrix W moves along the orthogonal factor of its momentum M, with U S Vᵀ = M:

        W ← (1 − lr·λ) W − lr·s·U Vᵀ,   s = √max(1, rows/columns)

    where ``torch.optim.Muon`` approximates U Vᵀ by ``ns_steps`` Newton–Schulz iterations in
    bfloat16: the singular values of its step lie between 0.68 and 1.14 instead of at 1, as long as
    those of M are above 0.01·‖M‖. Source: Jordan
    et al. (2024), "Muon: an optimizer for hidden layers in neural networks".

    Input and output layers are better left to AdamW: a parameter rule with ``muon: false`` does
    that. ``param_groups`` are those of the two optimizers, the very same dictionaries, matrices
    first; each has ``lr``, which schedulers scale.

    Args:
        params: parameters or parameter groups; a group may set any number below for itself, and
            ``muon: false``.
        lr: step length for matrices.
        momentum: decay of the gradient average M, an exponential moving average.
        nesterov: look ahead along the momentum.
        weight_decay: decoupled weight decay λ, of both kinds of parameters.
        ns_steps: Newton–Schulz iterations.
        adjust_lr_fn: ``original`` for s as above, ``match_rms_adamw`` for s = 0.2·√max(rows,
            columns), which suits AdamW's step lengths (Liu et al. 2025).
        adamw_lr: step length for the other parameters.
        adamw_betas: AdamW's decay rates.
        adamw_eps: added to AdamW's denominator.

    Raises:
        ConfigError: there is no matrix, or a group sets a number that none of its parameters use.

    >>> matrix = torch.zeros(2, 2, requires_grad=True)
    >>> bias = torch.zeros(2, requires_grad=True)
    >>> [group["lr"] for group in Muon([matrix, bias], lr=0.02, adamw_lr=0.001).param_groups]
    [0.02, 0.001]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = "original",
        adamw_lr: float = 1e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
    ) -> None:
        numbers = (lr, momentum, nesterov, weight_decay, ns_steps, adjust_lr_fn)
        defaults: dict[str, Any] = dict(zip(MATRIX, numbers, strict=True))
        defaults |= {"adamw_lr": adamw_lr, "adamw_betas": tuple(adamw_betas)}
        defaults |= {"adamw_eps": adamw_eps, "muon": True}
        matrices, rest = _split_groups(_list_groups(params), defaults)
        # torch's own, which refuses anything but matrices
        self.parts: list[Optimizer] = [torch.optim.Muon(matrices)]
        self.parts += [AdamW(rest)] if rest else []
        # no defaults: each group has its part's numbers already
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self.defaults = defaults
        self._share_state()

    def _share_state(self) -> None:
        """Let both parts work on this optimizer's own groups and state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            # one state for both, so that a checkpoint of this optimizer holds theirs
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # `load_state_dict` ends here too, with groups and state of its own making
        super().__setstate__(state)
        self._share_state()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step with both; return what the closure returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def _list_groups(params: Iterable[Tensor] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    listed = list(params)
    tensors = [p for p in listed if isinstance(p, Tensor)]
    return [{"params": tensors}] if tensors else [g for g in listed if isinstance(g, dict)]


def _split_groups(
    groups: list[dict[str, Any]], defaults: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide groups into those for Muon and those for AdamW, under each one's own names."""
    matrices, rest = [], []
    for group in groups:
        numbers = {**defaults, **group}
        is_matrix = [numbers["muon"] and p.ndim == 2 for p in group["params"]]
        if any(is_matrix):
            part = _select_parameters(group, is_matrix)
            matrices.append(part | {key: numbers[key] for key in MATRIX})
        if not all(is_matrix):
            part = _select_parameters(group, [not matrix for matrix in is_matrix])
            rest.append(part | {name: numbers[key] for key, name in REST.items()})
        _check_used(group, any(is_matrix), not all(is_matrix))
    if not matrices:
        raise ConfigError("optimizer=muon found no matrix to work on; choose optimizer=adamw")
    return matrices, rest


def _select_parameters(group: Mapping[str, Any], mask: list[bool]) -> dict[str, Any]:
    keys = [key for key in ("params", "param_names") if key in group]
    return {key: [v for v, use in zip(group[key], mask, strict=True) if use] for key in keys}


def _check_used(group: Mapping[str, Any], matrices: bool, rest: bool) -> None:
    """Refuse a number in a group that none of its parameters use."""
    used = {"params", "param_names", "muon"}
    used |= set(MATRIX) if matrices else set()
    used |= set(REST) if rest else set()
    for key in sorted(set(group) - used):
        hint = f"adamw_{key}" if rest else key.removeprefix("adamw_")
        raise ConfigError(
            f"param_groups.rules set {key!r} where no parameter uses it; set {hint!r} there"
        )
