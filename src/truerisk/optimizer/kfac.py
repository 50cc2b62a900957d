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
from truerisk.optimizer.kronecker import (
    CurvaturePartition,
    curvature_statistics,
    invert_factors,
    partition_parameters,
    unused_layer_error,
)
from truerisk.optimizer.line_search import OracleLine, finite_or_inf
from truerisk.optimizer.second_order import SecondOrderOptimizer, adapt_damping, reduction_ratio

CONTROLS = ("clip", "search")
FISHERS = ("sampled", "exact")


class KFAC(SecondOrderOptimizer):
    """K-FAC: the gradient, preconditioned by a Kronecker approximation of the Gauss–Newton matrix.

    A dense or convolutional layer or embedding has the block A ⊗ G (see `KroneckerBlock`), so
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
        check_option("control", control, CONTROLS)
        check_option("fisher", fisher, FISHERS)
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
        self._plan: tuple[nn.Module, CurvaturePartition] | None = None

    def descend(self, oracle: CurvatureOracle) -> None:
        """Move along the preconditioned gradient."""
        group, layout = self.group, self._partition(oracle.model)
        if group["steps"] % group["factor_every"] == 0:
            self._update_factors(oracle, layout)
        gradient = oracle.gradient()
        if group["steps"] < 3 or group["steps"] % group["inverse_every"] == 0:
            self._invert_factors(oracle, layout)
        group["steps"] += 1
        direction = self._precondition_gradient(oracle, layout, gradient)
        if group["control"] == "clip":
            self._step_clipped(oracle, direction)
        else:
            self._step_searched(oracle, direction)

    # --- curvature ----------------------------------------------------------------------------

    def _partition(self, model: nn.Module) -> CurvaturePartition:
        if self._plan is None or self._plan[0] is not model:
            self._plan = model, partition_parameters(model, self.group["params"])
        return self._plan[1]

    def _update_factors(self, oracle: CurvatureOracle, layout: CurvaturePartition) -> None:
        """Renew the running means from this step's samples."""
        totals: dict[tuple[int, str], Tensor] = {}

        def add_statistics(capture: LayerCapture) -> None:
            for param, name, value in curvature_statistics(layout, capture):
                key, value = (id(param), name), value * capture.share
                if key in totals:
                    value = totals[key] + value
                totals[key] = value

        layers = [block.layer for block in layout.blocks] + layout.norms
        exact = self.group["fisher"] == "exact"
        with torch.enable_grad():
            oracle.begin_step(CaptureRequest(layers, layout.others, exact, add_statistics))
        params = {id(p): p for p in self.group["params"]}
        for (key, name), value in totals.items():
            if key in params:
                self._update_average(self.state[params[key]], name, oracle.average_processes(value))

    def _update_average(self, state: dict[str, Any], name: str, value: Tensor) -> None:
        count = state.get(f"{name}_count", 0) + 1
        keep = min(1 - 1 / count, self.group["decay"])
        # the first value takes the place of zeros, which would bias the mean towards them
        if count > 1:
            value = keep * state[name] + (1 - keep) * value
        state[name] = value
        state[f"{name}_count"] = count

    def _invert_factors(self, oracle: CurvatureOracle, layout: CurvaturePartition) -> None:
        penalty = dict(zip(map(id, oracle.params), self._penalty_diagonals(oracle), strict=True))
        for block in layout.blocks:
            state = self.state[block.params[0]]
            if "input" in state:
                weight = sum(p.numel() for p in block.params)
                own = sum(penalty[id(p)] * p.numel() for p in block.params) / weight
                damping = self.group["damping"] + own
                pair = invert_factors(state["input"], state["output"], damping)
                state["input_inverse"], state["output_inverse"] = pair
        for param in self.group["params"]:
            if "diagonal" in self.state[param]:
                self.state[param]["penalty"] = penalty[id(param)]

    def _penalty_diagonals(self, oracle: CurvatureOracle) -> list[float]:
        """Estimate the mean diagonal of the penalties' Hessian over each parameter; not below zero.

        By one product with random signs, exact for a diagonal Hessian (Bekas et al. 2007).
        """
        gradient = oracle.gradient()
        signs = torch.randint(0, 2, gradient.shape, device=gradient.device).to(gradient) * 2 - 1
        diagonal = signs * oracle.penalty_product(signs)
        return [part.mean().clamp_min(0).item() for part in oracle.split(diagonal)]

    def _precondition_gradient(
        self, oracle: CurvatureOracle, layout: CurvaturePartition, gradient: Tensor
    ) -> Tensor:
        """Return −Δ [p], with Δ = G⁻¹ V A⁻¹ for a layer's gradient V."""
        parts = {id(p): g for p, g in zip(oracle.params, oracle.split(gradient), strict=True)}
        damping = self.group["damping"]
        for block in layout.blocks:
            state = self.state[block.params[0]]
            matrix = block.matrix([parts[id(p)] for p in block.params])
            if "input_inverse" in state:
                V, G_inverse = matrix, state["output_inverse"]
                A_inverse = state["input_inverse"]
                matrix = G_inverse @ V
                # an embedding's A is its diagonal alone
                matrix = matrix * A_inverse if A_inverse.ndim == 1 else matrix @ A_inverse
            # without a gradient there is nothing to precondition: a layer may sit in a dead branch
            elif matrix.any():
                raise unused_layer_error(block.layer)
            new = block.tensors(matrix)
            parts |= {id(p): g for p, g in zip(block.params, new, strict=True)}
        for p in oracle.params:
            state = self.state[p]
            if "diagonal" in state:
                parts[id(p)] = parts[id(p)] / (state["diagonal"] + damping + state["penalty"])
        return torch.cat([-parts[id(p)].reshape(-1) for p in oracle.params])

    # --- the step -----------------------------------------------------------------------------

    def _step_clipped(self, oracle: CurvatureOracle, direction: Tensor) -> None:
        """Take v ← μv − lr·ν·Δ, which changes the prediction by κ at most (Ba et al. 2017, §5)."""
        group, w = self.group, oracle.copy_weights()
        lr, kappa, mu = group["lr"], group["kl_clip"], group["momentum"]
        slope = -torch.dot(oracle.gradient(), direction).item()  # ∇JᵀΔ
        # the floor stands for a gradient of zero, where Δ is zero too
        nu = min(1.0, math.sqrt(kappa / max(lr**2 * slope, 1e-300)))
        v = lr * nu * direction + mu * self.memory.get("velocity", 0.0)
        if self._is_due():
            self._adapt_damping(oracle, direction, oracle.gauss_newton_product(direction))
        self.memory["velocity"], group["step_length"] = v, lr * nu
        oracle.set_weights(w + v)

    def _step_searched(self, oracle: CurvatureOracle, direction: Tensor) -> None:
        """Take v ← −αΔ + μv with the best α and μ (Martens & Grosse 2015, §6.4 and §7)."""
        group, directions = self.group, [direction]
        velocity = self.memory.get("velocity")
        if velocity is not None and velocity.any():
            directions.append(velocity)
        products = [oracle.gauss_newton_product(d) for d in directions]
        step, curved = minimize_quadratic(oracle.gradient(), directions, products, group["damping"])
        line = OracleLine(oracle, oracle.copy_weights(), step)
        group["step_length"] = t = line.search(group["lr"])
        # no step at all says that the model is wrong: more damping, due or not
        if self._is_due() or t == 0:
            self._adapt_damping(oracle, step, curved)
        self.memory["velocity"] = t * step
        oracle.set_weights(line.point + t * step)

    def _is_due(self) -> bool:
        every = self.group["adapt_every"]
        return every is not None and self.group["steps"] % every == 0

    def _adapt_damping(self, oracle: CurvatureOracle, step: Tensor, product: Tensor) -> None:
        """Change λ as the model of J proves right or wrong, from Bp of a step p."""
        group, gradient = self.group, oracle.gradient()
        predicted = torch.dot(step, gradient + 0.5 * product).item()
        end = finite_or_inf(oracle.value(oracle.copy_weights() + step))
        rho = reduction_ratio(oracle.value(), end, predicted)
        rate = (20 / 19) ** (group["adapt_every"] or 1)
        group["damping"] = adapt_damping(group["damping"], rho, rate)


def check_option(key: str, value: str, options: tuple[str, ...]) -> None:
    """Refuse a value that is none of the options.

    Args:
        key: below ``optimizer``.
        value: what was given.
        options: what is known.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in options:
        raise ConfigError(f"optimizer.{key}={value} is not known; {suggest(str(value), options)}")


def minimize_quadratic(
    gradient: Tensor, directions: list[Tensor], products: list[Tensor], damping: float
) -> tuple[Tensor, Tensor]:
    """Minimize gᵀp + ½ pᵀ(B + λI)p over the combinations p of some directions.

    Each direction is made conjugate to those before it, and left out where nothing but rounding
    remains; the minimum is then that along one after the other.

    Args:
        gradient: g [p].
        directions: vectors [p].
        products: their products with B.
        damping: λ.

    Returns:
        p and Bp.

    >>> one = torch.tensor([1.0])
    >>> minimize_quadratic(torch.tensor([-6.0]), [one], [2 * one], damping=1.0)
    (tensor([2.]), tensor([4.]))
    """
    step, curved = torch.zeros_like(gradient), torch.zeros_like(gradient)
    before: list[tuple[Tensor, Tensor, Tensor]] = []
    for d, product in zip(directions, products, strict=True):
        whole = torch.dot(d, product + damping * d)
        for other, others, size in before:
            share = torch.dot(d, others + damping * other) / size
            d, product = d - share * other, product - share * others
        size = torch.dot(d, product + damping * d)
        if size > torch.finfo(size.dtype).eps * whole:
            length = -torch.dot(gradient, d) / size
            step, curved = step + length * d, curved + length * product
            before.append((d, product, size))
    return step, curved
