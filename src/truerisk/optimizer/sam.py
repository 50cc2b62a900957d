"""Sharpness-aware minimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from truerisk.core.errors import ConfigError
from truerisk.optimizer.needs import Needs, needs_of


class SAM(Optimizer):
    """Sharpness-aware minimization around a first-order optimizer.

    The base optimizer steps from w with the gradient taken at w + ε, where

        ε = ρ g / ‖g‖               (Foret et al. 2021, eq. 2)
        ε = ρ T² g / ‖T g‖          (adaptive: Kwon et al. 2021, eq. 8), T = |w| + η

    and g = ∇J(w); norms are over all parameters together. A step calls the closure exactly twice
    and puts w back to the bit before the base optimizer moves it. The parameter groups and the
    state are the base optimizer's own. A gradient clipped by norm leaves ε as it is; one clipped by
    value changes its direction.

    Args:
        params: parameters or parameter groups.
        base: the base optimizer's factory, called with ``params``.
        rho: radius of the neighbourhood, ρ.
        adaptive: measure the radius in units of each weight's size.
        eta: η, keeps weights at zero movable when adaptive.

    Raises:
        ConfigError: ``base`` needs a closure, modes or second derivatives of its own, or ``rho`` is
            negative.

    >>> import functools
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = SAM([w], functools.partial(torch.optim.SGD, lr=0.1), rho=0.5)
    >>> def closure():
    ...     w.grad = None
    ...     loss = (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    1.0
    >>> round(w.item(), 6)  # 1 − 0.1 · 2 · (1 + 0.5)
    0.7
    """

    needs = Needs(closure=True, scaler=False)

    def __init__(
        self,
        params: ParamsT,
        base: Callable[..., Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        eta: float = 0.01,
    ) -> None:
        _check_base(base, rho)
        self.base = base(params)
        super().__init__(self.base.param_groups, self.base.defaults)
        self.rho, self.adaptive, self.eta = rho, adaptive, eta
        self._share_state()

    def _share_state(self) -> None:
        # torch's constructor and `load_state_dict` leave each optimizer with lists of its own
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: evaluates J, leaves ∇J in ``.grad`` in place of what was there, returns J.

        Returns:
            J(w) from before the step.
        """
        with torch.enable_grad():
            loss = closure()
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        w = [p.clone() for p in params]
        try:
            torch._foreach_add_(params, self._perturbation_of(params))
            with torch.enable_grad():
                closure()
        finally:
            # a copy, as (w + ε) − ε is not w in floating point; also where the closure raises
            for p, before in zip(params, w, strict=True):
                p.copy_(before)  # torch 2.13 copies no list of shards (trainer=fsdp)
        self.base.step()
        return loss

    def _perturbation_of(self, params: list[Tensor]) -> tuple[Tensor, ...]:
        """Compute ε, one tensor a parameter."""
        g = [p.grad for p in params if p.grad is not None]
        if not self.adaptive:
            return torch._foreach_mul(g, self.rho / _clamp_norm(get_total_norm(g)))
        T = torch._foreach_add(torch._foreach_abs(params), self.eta)
        Tg = torch._foreach_mul(T, g)
        scale = self.rho / _clamp_norm(get_total_norm(Tg))
        return torch._foreach_mul(torch._foreach_mul(T, Tg), scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state; SAM itself remembers nothing between steps."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the base optimizer."""
        self.base.load_state_dict(state_dict)
        self._share_state()


def _clamp_norm(norm: Tensor) -> Tensor:
    # a zero gradient is then a zero perturbation, not 0/0
    return norm.clamp_min(1e-12)


def _check_base(base: Callable[..., Optimizer], rho: float) -> None:
    if rho < 0:
        raise ConfigError(f"optimizer.rho is {rho}; a radius is not negative")
    needs = needs_of(base)
    if needs.closure or needs.train_eval_modes or needs.create_graph or needs.curvature:
        raise ConfigError(
            "optimizer.base must be a first-order optimizer that steps on a ready gradient, such "
            "as sgd, momentum or adamw: choose one with optimizer@optimizer.base=momentum"
        )
