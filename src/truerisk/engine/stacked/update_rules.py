"""The update rules of first-order optimizers, written out on stacked parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Hyperparameters:
    """The members' numbers for one group of parameters, as columns [K, 1].

    ``exact`` has them in double precision, ``numbers[name]`` in the type of the weights,
    ``switches`` what is on or off for all of them, and ``fuses`` whether torch's own kernels may
    do the update.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        switches: Sequence[str],
        like: Tensor,
    ) -> None:
        self.dtype = like.dtype
        self.switches = {name: bool(groups[0].get(name, False)) for name in switches}
        self.exact = _columns(groups, names, like.device)
        self.nonzero = {name: bool((column != 0).any()) for name, column in self.exact.items()}
        self.fuses = True
        self._cast: dict[str, Tensor] = {}
        self._rest: dict[str, Tensor] = {}
        self._alike: list[tuple[list[int], dict[str, float]]] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """A number, in the type of the weights."""
        if name not in self._cast:
            self._cast[name] = self.cast(self.exact[name])
        return self._cast[name]

    def rest(self, name: str) -> Tensor:
        """1 minus a number."""
        if name not in self._rest:
            self._rest[name] = self.cast(1 - self.exact[name])
        return self._rest[name]

    def alike(self) -> list[tuple[list[int], dict[str, float]]]:
        """The rows that have the same numbers, and those."""
        if self._alike is None:
            rows: dict[tuple[float, ...], list[int]] = {}
            columns = [column.flatten().tolist() for column in self.exact.values()]
            for k, own in enumerate(zip(*columns, strict=True)):
                rows.setdefault(own, []).append(k)
            self._alike = [(k, dict(zip(self.exact, own, strict=True))) for own, k in rows.items()]
        return self._alike

    def cast(self, numbers: Tensor) -> Tensor:
        """Numbers in the type of the weights."""
        return numbers.to(self.dtype)

    def any(self, name: str) -> bool:
        """Whether a number is not zero for some member."""
        return self.nonzero[name]

    def with_columns(self, columns: Sequence[Tensor], dtype: torch.dtype) -> Hyperparameters:
        """Return the same with other tensors for the numbers, of which none is looked at."""
        other = copy.copy(self)
        other.exact = dict(zip(self.exact, columns, strict=True))
        other.dtype, other.fuses, other._cast, other._rest = dtype, False, {}, {}
        return other


def _columns(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str], device: torch.device
) -> dict[str, Tensor]:
    """The values of each name, pairs of betas by themselves; a number a class lacks is zero."""
    rows: dict[str, list[float]] = {}
    for name in names:
        if name == "betas":
            rows["beta1"], rows["beta2"] = map(
                list, zip(*(g["betas"] for g in groups), strict=True)
            )
        else:
            rows[name] = [group.get(name, 0.0) for group in groups]
    return {
        name: torch.tensor(row, dtype=torch.float64, device=device).unsqueeze(1)
        for name, row in rows.items()
    }


State = dict[str, Tensor]

WIDE = 2048
"""Weights a member from which one kernel a member is faster than eleven operations for them all."""


class UpdateRule(NamedTuple):
    """An update on stacked weights, and what of an optimizer's options it knows.

    Attributes:
        step: ``step(w_KP, g_KP, state, hyperparameters, t)`` moves the weights in place.
        keeps: names of the tensors it keeps from step to step, given the hyperparameters.
        stacks: numbers that may differ between the members, each a column [K, 1].
        switches: options that are on or off for all members.
        counts: where the optimizer counts its steps: in the ``state`` of each weight, in its
            ``groups``, or ``nowhere``.
        initial: numbers that only the start of the optimizer's own state depends on.
    """

    step: Callable[[Tensor, Tensor, State, Hyperparameters, Any], None]
    keeps: Callable[[Hyperparameters], tuple[str, ...]]
    stacks: tuple[str, ...]
    switches: tuple[str, ...] = ()
    counts: str = "state"
    initial: tuple[str, ...] = ()


class TensorRule:
    """An update rule as a function of tensors alone.

    Args:
        rule: the rule.
        kept: names of what it keeps.
        numbers: whose switches it has, and whose numbers it knows to be zero.
    """

    def __init__(self, rule: UpdateRule, kept: Sequence[str], numbers: Hyperparameters) -> None:
        self.rule, self.kept, self.numbers = rule, list(kept), numbers

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Move w [K, P], the first of the tensors, along g, the second, at step t [K, 1]."""
        w, g, t, *rest = tensors
        state = dict(zip(self.kept, rest, strict=False))
        columns = rest[len(self.kept) :]
        self.rule.step(w, g, state, self.numbers.with_columns(columns, w.dtype), t)
        return ()


def sgd(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """v ← μv + (1 − τ)g, w ← w − lr·v (or lr·(g + μv) with Nesterov's); the first v is g."""
    g = _coupled(w, g, h)
    if "momentum_buffer" in state:
        v, mu = state["momentum_buffer"], h["momentum"]
        fresh = (h.exact["momentum"] == 0) | (t == 1)
        v.mul_(mu).add_(g * h.cast(torch.where(fresh, 1.0, 1 - h.exact["dampening"])))
        g = g.add(mu * v) if h.switches["nesterov"] else v
    w.sub_(h["lr"] * g)


def adagrad(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """s ← s + g², w ← w − lr/(1 + (t − 1)·decay) · g/(√s + ε)."""
    g = _coupled(w, g, h)
    s = state["sum"].addcmul_(g, g)
    rate = h.cast(h.exact["lr"] / (1 + (t - 1) * h.exact["lr_decay"]))
    w.sub_((g * rate).div_(s.sqrt().add_(h["eps"])))


def rmsprop(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """s ← αs + (1 − α)g²; v ← μv + g/(√s + ε); w ← w − lr·v."""
    g = _coupled(w, g, h)
    s = state["square_avg"].mul_(h["alpha"]).add_((g * g).mul_(h.rest("alpha")))
    if "grad_avg" in state:
        mean = state["grad_avg"].lerp_(g, h.rest("alpha"))
        root = s.addcmul(mean, mean, value=-1).sqrt_()
    else:
        root = s.sqrt()
    step = g / root.add_(h["eps"])
    if "momentum_buffer" in state:
        step = state["momentum_buffer"].mul_(h["momentum"]).add_(step)
    w.sub_(h["lr"] * step)


def adadelta(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """s ← ρs + (1 − ρ)g²; d = g·√(a + ε)/√(s + ε); a ← ρa + (1 − ρ)d²; w ← w − lr·d."""
    g, rho, eps = _coupled(w, g, h), h["rho"], h["eps"]
    s = state["square_avg"].mul_(rho).add_((g * g).mul_(h.rest("rho")))
    a = state["acc_delta"]
    d = a.add(eps).sqrt_().div_(s.add(eps).sqrt_()).mul_(g)
    a.mul_(rho).add_((d * d).mul_(h.rest("rho")))
    w.sub_(d * h["lr"])


def adam(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; w ← w − lr·m̂/(√v̂ + ε)."""
    if w.shape[1] >= WIDE and h.fuses:
        _fused(torch._fused_adam_, w, g, state, h, t)
    else:
        _adam(w, _coupled(w, g, h), state, h, t)


def adamw(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """Adam's step, beside w ← (1 − lr·λ)w."""
    if w.shape[1] >= WIDE and h.fuses:
        _fused(torch._fused_adamw_, w, g, state, h, t)
    else:
        _shrink(w, h)
        _adam(w, g, state, h, t)


def _fused(
    kernel: Callable[..., None], w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int
) -> None:
    """torch's own update, row by row, with one call for all rows that have the same numbers."""
    tensors = (w, g, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq"))
    steps = torch.full((len(w),), float(t), device=w.device).unbind()
    columns = [() if tensor is None else tensor.unbind() for tensor in tensors]
    for rows, numbers in h.alike():
        own = [[column[k] for k in rows] if column else [] for column in columns]
        found_steps = [steps[k] for k in rows]
        kernel(*own, found_steps, **numbers, amsgrad=h.switches["amsgrad"], maximize=False)


def _adam(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    m, v = _moments(g, state, h)
    if "max_exp_avg_sq" in state:
        v = torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
    first, second = _corrections(h, t)
    root = v.sqrt().div_(h.cast(second.sqrt())).add_(h["eps"])
    w.sub_((m * h.cast(h.exact["lr"] / first)).div_(root))


def adamax(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """m ← β₁m + (1 − β₁)g; u ← max(β₂u, |g| + ε); w ← w − lr·m̂/u (Kingma & Ba 2015, §7.1)."""
    g = _coupled(w, g, h)
    m, u = state["exp_avg"].lerp_(g, h.rest("beta1")), state["exp_inf"]
    torch.maximum(u.mul_(h["beta2"]), g.abs().add_(h["eps"]), out=u)
    w.sub_((m * h.cast(h.exact["lr"] / _corrections(h, t)[0])).div_(u))


def nadam(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """Adam with Nesterov momentum μₜ = β₁(1 − ½·0.96^(t·decay)) (Dozat 2016)."""
    g = _decayed(w, g, h, "decoupled_weight_decay")
    m, v = _moments(g, state, h)
    lr, mu = h.exact["lr"], _growing(h, t)
    product, following = state["mu_product"].mul_(mu), _growing(h, t + 1)
    root = (v / h.cast(_corrections(h, t)[1])).sqrt_().add_(h["eps"])
    w.sub_((g * h.cast(lr * (1 - mu) / (1 - product))).div_(root))
    w.sub_((m * h.cast(lr * following / (1 - product * following))).div_(root))


def _growing(h: Hyperparameters, t: int) -> Tensor:
    return h.exact["beta1"] * (1 - 0.5 * 0.96 ** (t * h.exact["momentum_decay"]))


def radam(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """Adam's step, rectified where the variance estimate can be trusted, else momentum's."""
    g = _decayed(w, g, h, "decoupled_weight_decay")
    m, v = _moments(g, state, h)
    first, second = _corrections(h, t)
    most = 2 / (1 - h.exact["beta2"]) - 1
    length = most - 2 * t * h.exact["beta2"] ** t / second
    safe = length.clamp(min=5)
    rect = ((safe - 4) * (safe - 2) * most / ((most - 4) * (most - 2) * safe)).sqrt()
    adaptive = h.cast(rect * second.sqrt()) / v.sqrt().add_(h["eps"])
    step = (m / h.cast(first)).mul_(h["lr"])
    w.sub_(step.mul_(torch.where(length > 5, adaptive, 1.0)))


def lion(w: Tensor, g: Tensor, state: State, h: Hyperparameters, t: int) -> None:
    """w ← w − lr·sign(β₁m + (1 − β₁)g); m ← β₂m + (1 − β₂)g."""
    g = _decayed(w, g, h, "weight_decouple")
    m = state["exp_avg"]
    update = m.lerp(g, h.rest("beta1")).sign_()
    m.lerp_(g, h.rest("beta2"))
    w.sub_(update.mul_(h["lr"]))


def _coupled(w: Tensor, g: Tensor, h: Hyperparameters) -> Tensor:
    """g + λw."""
    return g + h["weight_decay"] * w if h.any("weight_decay") else g


def _shrink(w: Tensor, h: Hyperparameters) -> None:
    """w ← (1 − lr·λ)w."""
    w.mul_(h.cast(1 - h.exact["lr"] * h.exact["weight_decay"]))


def _decayed(w: Tensor, g: Tensor, h: Hyperparameters, decoupled: str) -> Tensor:
    if not h.switches[decoupled]:
        return _coupled(w, g, h)
    _shrink(w, h)
    return g


def _moments(g: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, Tensor]:
    m = state["exp_avg"].lerp_(g, h.rest("beta1"))
    return m, state["exp_avg_sq"].mul_(h["beta2"]).add_((g * g).mul_(h.rest("beta2")))


def _corrections(h: Hyperparameters, t: int) -> tuple[Tensor, Tensor]:
    """1 − β₁ᵗ and 1 − β₂ᵗ."""
    return 1 - h.exact["beta1"] ** t, 1 - h.exact["beta2"] ** t


def _always(*names: str) -> Callable[[Hyperparameters], tuple[str, ...]]:
    return lambda _numbers: names


def _with_momentum(*names: str) -> Callable[[Hyperparameters], tuple[str, ...]]:
    """The tensors kept where some member has momentum, and what a centred variance needs."""

    def keeps(h: Hyperparameters) -> tuple[str, ...]:
        more = ("momentum_buffer",) if h.any("momentum") else ()
        return (*names, *more, *(("grad_avg",) if h.switches.get("centered") else ()))

    return keeps


def _moments_kept(h: Hyperparameters) -> tuple[str, ...]:
    names = ("exp_avg", "exp_avg_sq")
    return (*names, "max_exp_avg_sq") if h.switches["amsgrad"] else names


_BETAS = ("lr", "betas", "eps", "weight_decay")
_DECOUPLED = ("decoupled_weight_decay",)
_SGD = UpdateRule(
    sgd, _with_momentum(), ("lr", "momentum", "dampening", "weight_decay"), ("nesterov",), "nowhere"
)
_ADAM = UpdateRule(adam, _moments_kept, _BETAS, ("amsgrad",))

UPDATE_RULES: dict[str, UpdateRule] = {
    "torch.optim.SGD": _SGD,
    "truerisk.optimizer.GD": _SGD,
    "torch.optim.Adagrad": UpdateRule(
        adagrad,
        _always("sum"),
        ("lr", "lr_decay", "eps", "weight_decay"),
        initial=("initial_accumulator_value",),
    ),
    "torch.optim.RMSprop": UpdateRule(
        rmsprop,
        _with_momentum("square_avg"),
        ("lr", "alpha", "eps", "momentum", "weight_decay"),
        ("centered",),
    ),
    "torch.optim.Adadelta": UpdateRule(
        adadelta, _always("square_avg", "acc_delta"), ("lr", "rho", "eps", "weight_decay")
    ),
    "torch.optim.Adam": _ADAM,
    "torch.optim.AdamW": _ADAM._replace(step=adamw),
    "torch.optim.Adamax": UpdateRule(adamax, _always("exp_avg", "exp_inf"), _BETAS),
    "torch.optim.NAdam": UpdateRule(
        nadam,
        _always("exp_avg", "exp_avg_sq", "mu_product"),
        (*_BETAS, "momentum_decay"),
        _DECOUPLED,
    ),
    "torch.optim.RAdam": UpdateRule(radam, _always("exp_avg", "exp_avg_sq"), _BETAS, _DECOUPLED),
    "pytorch_optimizer.Lion": UpdateRule(
        lion, _always("exp_avg"), ("lr", "betas", "weight_decay"), ("weight_decouple",), "groups"
    ),
}
"""By the ``_target_`` of an optimizer's configuration."""

SINGLE = {"mu_product": 1.0}
"""What is kept as one number a member, [K, 1], rather than one a weight, and where it starts."""
