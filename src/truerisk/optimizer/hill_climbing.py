"""Hill climbing: what can be had without a gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from truerisk.core import rng
from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import Closure, finite_or_inf, without_gradient
from truerisk.optimizer.needs import Needs, refuse_shards


class HillClimbing(Optimizer):
    """Stochastic hill climbing, the (1+1) evolution strategy: keep a random step if J falls.

        v = w + lr·σ·z,  z ~ N(0, I);    w ← v if J(v) < J(w)
        σ ← σ · exp((accepted − 1/5) / d)

    so that about one proposal in five is accepted (the 1/5 rule, Rechenberg 1973): steps grow where
    that is easy and shrink near a minimum. J is compared on the step's own samples; on the whole
    training set it never rises. It takes no gradient, and gains less the more weights there are:
    a baseline.

    Draws come from a generator of its own, seeded from the run's noise stream and kept in
    ``state_dict``. Source: Hansen, Arnold & Auger 2015, "Evolution Strategies", algorithm 3.

    Args:
        params: parameters, in one group.
        lr: standard deviation of the first proposals.
        proposals: proposals in one optimizer step.
        damping: d, the inertia of σ; null: √(n + 1) for n weights.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> w = torch.tensor([3.0, -4.0])
    >>> optimizer = HillClimbing([w], lr=1.0, proposals=300)
    >>> optimizer.step(lambda: w.norm()).item(), w.norm().item() < 1e-6
    (5.0, True)
    """

    needs = Needs(
        closure=True, clip=False, groups=False, scaler=False, gradient=False, projection=False
    )

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        proposals: int = 20,
        damping: float | None = None,
    ) -> None:
        check_float("optimizer.lr", lr, above=True)
        check_int("optimizer.proposals", proposals)
        super().__init__(params, {"lr": lr, "proposals": proposals, "damping": damping})
        if len(self.param_groups) > 1:
            raise ConfigError("hill climbing takes one parameter group: set param_groups=all")
        tensors = self.param_groups[0]["params"]
        refuse_shards("HillClimbing", tensors)
        size = sum(p.numel() for p in tensors)
        self.damping = check_float("optimizer.damping", damping or math.sqrt(size + 1), above=True)
        self.scale = 1.0
        # a generator of its own: proposals must not change the dropout masks of the closure
        self.draws = rng.named_generator(share_seed(torch.initial_seed()), "hill climbing")

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Make the proposals; returns J from before them.

        Args:
            closure: evaluates J on the same samples with the same noise at every call. If it has an
                argument ``gradient``, it is called with ``gradient=False``.
        """
        look = without_gradient(closure)
        before = look()
        value, group = finite_or_inf(before), self.param_groups[0]
        for _ in range(group["proposals"]):
            value = self._try_proposal(group, look, value)
        return before

    def _try_proposal(self, group: dict[str, Any], look: Any, value: float) -> float:
        """Try one proposal; returns J where that leaves the weights."""
        params = group["params"]
        saved = [p.clone() for p in params]
        for p in params:
            p.add_(self._draw_normal(p), alpha=group["lr"] * self.scale)
        proposed = finite_or_inf(look())
        accepted = proposed < value
        self.scale *= math.exp((accepted - 0.2) / self.damping)
        if accepted:
            return proposed
        # copied back, not subtracted: that would round
        torch._foreach_copy_(params, saved)
        return value

    def _draw_normal(self, p: Tensor) -> Tensor:
        # on the CPU, so that every device makes the same proposals
        return torch.randn(p.shape, generator=self.draws, dtype=p.dtype).to(p.device)

    def state_dict(self) -> dict[str, Any]:
        """Beside the parameter group: σ and the generator."""
        return super().state_dict() | {"scale": self.scale, "draws": self.draws.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the same draws."""
        self.scale = state_dict["scale"]
        self.draws.set_state(state_dict["draws"].cpu())
        super().load_state_dict({k: state_dict[k] for k in ("state", "param_groups")})


def share_seed(seed: int) -> int:
    """The first process's seed: all must make the same proposals."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        seeds = [seed]
        torch.distributed.broadcast_object_list(seeds)
        return seeds[0]
    return seed
