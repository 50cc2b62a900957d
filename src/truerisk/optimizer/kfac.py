"""Kronecker-factored approximate curvature."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CaptureRequest, CurvatureOracle, LayerCapture
from truerisk.core.errors import ConfigError, suggest
from truerisk.optimizer.kronecker import inverses
from truerisk.optimizer.layout import Layout, divide, statistics, uncalled
from truerisk.optimizer.second_order import (
    Ray,
    SecondOrder,
    adapted,
    finite,
    reduction_ratio,
)

CONTROLS = ("clip", "search")
FISHERS = ("sampled", "exact")


class KFAC(SecondOrder):
    """K-FAC: the gradient, preconditioned by a Kronecker approximation of the Gauss–Newton matrix.

    A dense or convolutional layer or embedding has the block A ⊗ G (see ``kronecker.Block``), so
    its gradient V, a matrix, is preconditioned to ``G⁻¹ V A⁻¹`` with factored Tikhonov damping λ
    (Martens & Grosse 2015; convolutions: Grosse & Martens 2016). Norm layers have the diagonal of
    their block; all other parameters (recurrent layers, positions, grouped convolutions) a random
    estimate of theirs. A, G and the diagonals are running means. Penalties add the mean diagonal of
    their Hessian over a layer to its λ, which is exact for L2 with one coefficient.

    The Gauss–Newton matrix is the Fisher matrix where the loss is a likelihood. G needs derivatives
    of a root of it: ``sampled`` draws targets from the model's own prediction, one extra backward
    pass (squared loss: Gaussian, see `truerisk.objective.loss_curvature`); ``exact`` takes one pass
    an output.

    Steps are controlled in one of two ways:

    * ``clip``: v ← μv − lr·ν·Δ with ``ν = min(1, √(κ / (lr² ∇JᵀΔ)))``, which keeps the
      change of the prediction, as KL divergence, to the order of κ (Ba, Grosse & Martens 2017,
      §5). For mini-batches.
    * ``search``: v ← −αΔ + μv with the α and μ that minimise the quadratic model with the
      Gauss–Newton matrix itself, not its approximation (Martens & Grosse 2015, §6.4 and §7), then
      backtracked from ``lr`` until J falls. For the full batch: there μ acts as in conjugate
      gradients.

    Every ``adapt_every`` steps λ is divided or multiplied by (19/20)^adapt_every, as ρ, the change
    of J over that of the model with the Gauss–Newton matrix, is below ¼ or above ¾ (ibid., §6.5):
    for the step of ``search``, and for −Δ itself under ``clip``, as a short enough step is always
    as predicted and would let λ go to zero. The present λ is the parameter group's ``damping``.

    Args:
        params: parameters, in one group.
        lr: step length (clip), or the first one tried (search).
        control: ``clip`` or ``search``.
        momentum: μ of ``clip``.
        kl_clip: κ of ``clip``.
        damping: the first λ.
        adapt_every: steps between changes of λ; null keeps it.
        fisher: ``sampled`` or ``exact``.
        decay: the largest weight of the old running mean; the k-th has at most 1 − 1/k.
        factor_every: steps between updates of A, G and the diagonals.
        inverse_every: steps between inversions; the first three steps each have theirs.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        control: str = "clip",
        momentum: float = 0.9,
        kl_clip: float = 1e-3,
        damping: float = 0.01,
        adapt_every: int | None = 5,
        fisher: str = "sampled",
        decay: float = 0.95,
        factor_every: int = 1,
        inverse_every: int = 10,
    ) -> None:
        _known("control", control, CONTROLS)
        _known("fisher", fisher, FISHERS)
        super().__init__(
            params,
            lr,
            control=control,
            momentum=check_float("optimizer.momentum", momentum, 0, 1),
            kl_clip=check_float("optimizer.kl_clip", kl_clip, above=True),
            damping=check_float("optimizer.damping", damping, above=True),
            adapt_every=adapt_every and check_int("optimizer.adapt_every", adapt_every),
            fisher=fisher,
            decay=check_float("optimizer.decay", decay, 0, 1),
            factor_every=check_int("optimizer.factor_every", factor_every),
            inverse_every=check_int("optimizer.inverse_every", inverse_every),
            steps=0,
        )
        self._plan: tuple[nn.Module, Layout] | None = None

    def descend(self, problem: CurvatureOracle) -> None:
        """Move along the preconditioned gradient."""
        group, layout = self.group, self._layout(problem.model)
        if group["steps"] % group["factor_every"] == 0:
            self._look(problem, layout)
        gradient = problem.gradient()
        if group["steps"] < 3 or group["steps"] % group["inverse_every"] == 0:
            self._invert(problem, layout)
        group["steps"] += 1
        direction = self._preconditioned(problem, layout, gradient)
        step = self._clipped if group["control"] == "clip" else self._searched
        step(problem, direction)

    # --- curvature ----------------------------------------------------------------------------

    def _layout(self, model: nn.Module) -> Layout:
        if self._plan is None or self._plan[0] is not model:
            self._plan = model, divide(model, self.group["params"])
        return self._plan[1]

    def _look(self, problem: CurvatureOracle, layout: Layout) -> None:
        """Renew the running means from this step's samples."""
        found: dict[tuple[int, str], Tensor] = {}

        def tell(capture: LayerCapture) -> None:
            for param, name, value in statistics(layout, capture):
                key, value = (id(param), name), value * capture.share
                found[key] = found[key] + value if key in found else value

        layers = [block.layer for block in layout.blocks] + layout.norms
        exact = self.group["fisher"] == "exact"
        with torch.enable_grad():
            problem.begin_step(CaptureRequest(layers, layout.others, exact, tell))
        params = {id(p): p for p in self.group["params"]}
        for (key, name), value in found.items():
            if key in params:
                self._average(self.state[params[key]], name, problem.average_processes(value))

    def _average(self, state: dict[str, Any], name: str, value: Tensor) -> None:
        count = state.get(f"{name}_count", 0) + 1
        keep = min(1 - 1 / count, self.group["decay"])
        state[name] = value if count == 1 else keep * state[name] + (1 - keep) * value
        state[f"{name}_count"] = count

    def _invert(self, problem: CurvatureOracle, layout: Layout) -> None:
        penalty = dict(zip(map(id, problem.params), self._penalties(problem), strict=True))
        for block in layout.blocks:
            state = self.state[block.params[0]]
            if "input" in state:
                weight = sum(p.numel() for p in block.params)
                own = sum(penalty[id(p)] * p.numel() for p in block.params) / weight
                damping = self.group["damping"] + own
                pair = inverses(state["input"], state["output"], damping)
                state["input_inverse"], state["output_inverse"] = pair
        for param in self.group["params"]:
            if "diagonal" in self.state[param]:
                self.state[param]["penalty"] = penalty[id(param)]

    def _penalties(self, problem: CurvatureOracle) -> list[float]:
        """The mean diagonal of the penalties' Hessian over each parameter; not below zero.

        By one product with random signs, exact for a diagonal Hessian (Bekas et al. 2007).
        """
        gradient = problem.gradient()
        signs = torch.randint(0, 2, gradient.shape, device=gradient.device).to(gradient) * 2 - 1
        diagonal = signs * problem.penalty_product(signs)
        return [part.mean().clamp_min(0).item() for part in problem.split(diagonal)]

    def _preconditioned(self, problem: CurvatureOracle, layout: Layout, gradient: Tensor) -> Tensor:
        """−Δ, flat."""
        parts = {id(p): g for p, g in zip(problem.params, problem.split(gradient), strict=True)}
        damping = self.group["damping"]
        for block in layout.blocks:
            state = self.state[block.params[0]]
            matrix = block.matrix([parts[id(p)] for p in block.params])
            if "input_inverse" in state:
                left, a = state["output_inverse"] @ matrix, state["input_inverse"]
                matrix = left * a if a.ndim == 1 else left @ a
            elif matrix.any():
                raise uncalled(block.layer)
            new = block.tensors(matrix)
            parts |= {id(p): g for p, g in zip(block.params, new, strict=True)}
        for p in problem.params:
            state = self.state[p]
            if "diagonal" in state:
                parts[id(p)] = parts[id(p)] / (state["diagonal"] + damping + state["penalty"])
        return torch.cat([-parts[id(p)].reshape(-1) for p in problem.params])

    # --- the step -----------------------------------------------------------------------------

    def _clipped(self, problem: CurvatureOracle, direction: Tensor) -> None:
        group, point = self.group, problem.copy_weights()
        slope = -torch.dot(problem.gradient(), direction).item()
        bound = math.sqrt(group["kl_clip"] / max(group["lr"] ** 2 * slope, 1e-300))
        scale = group["lr"] * min(1.0, bound)
        step = scale * direction + group["momentum"] * self.memory.get("velocity", 0.0)
        if self._adapts():
            self._adapt(problem, direction, problem.gauss_newton_product(direction))
        self.memory["velocity"], group["taken"] = step, scale
        problem.set_weights(point + step)

    def _searched(self, problem: CurvatureOracle, direction: Tensor) -> None:
        ways = [direction, *(v for v in [self.memory.get("velocity")] if v is not None and v.any())]
        bent = [problem.gauss_newton_product(way) for way in ways]
        step, curved = lowest(problem.gradient(), ways, bent, self.group["damping"])
        ray = Ray(problem, problem.copy_weights(), step)
        self.group["taken"] = t = ray.backtrack(self.group["lr"])
        if self._adapts() or t == 0:
            self._adapt(problem, step, curved)
        self.memory["velocity"] = t * step
        problem.set_weights(ray.point + t * step)

    def _adapts(self) -> bool:
        every = self.group["adapt_every"]
        return every is not None and self.group["steps"] % every == 0

    def _adapt(self, problem: CurvatureOracle, step: Tensor, bent: Tensor) -> None:
        """Change λ as the model of J proves right or wrong."""
        group, gradient = self.group, problem.gradient()
        predicted = torch.dot(step, gradient + 0.5 * bent).item()
        end = finite(problem.value(problem.copy_weights() + step))
        ratio = reduction_ratio(problem.value(), end, predicted)
        rate = (20 / 19) ** (group["adapt_every"] or 1)
        group["damping"] = adapted(group["damping"], ratio, rate)


def _known(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ConfigError(f"optimizer.{key}={value} is not known; {suggest(str(value), options)}")


def lowest(
    gradient: Tensor, ways: list[Tensor], bent: list[Tensor], damping: float
) -> tuple[Tensor, Tensor]:
    """The p among the combinations of ``ways`` where gᵀp + ½ pᵀ(B + λI)p is least, and Bp.

    ``bent`` are the products of ``ways`` with B. Each way is made conjugate to those before it, and
    left out where nothing but rounding remains; the minimum is then that along one after the other.

    >>> one = torch.tensor([1.0])
    >>> lowest(torch.tensor([-6.0]), [one], [2 * one], damping=1.0)
    (tensor([2.]), tensor([4.]))
    """
    step, curved = torch.zeros_like(gradient), torch.zeros_like(gradient)
    before: list[tuple[Tensor, Tensor, Tensor]] = []
    for way, product in zip(ways, bent, strict=True):
        whole = torch.dot(way, product + damping * way)
        for other, others, size in before:
            share = torch.dot(way, others + damping * other) / size
            way, product = way - share * other, product - share * others
        size = torch.dot(way, product + damping * way)
        if size > torch.finfo(size.dtype).eps * whole:
            length = -torch.dot(gradient, way) / size
            step, curved = step + length * way, curved + length * product
            before.append((way, product, size))
    return step, curved
