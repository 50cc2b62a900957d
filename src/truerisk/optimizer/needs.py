"""What an optimizer needs of the step that drives it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from truerisk.core.errors import ConfigError


@dataclass(frozen=True)
class Needs:
    """What an optimizer asks of the step, and what the step may do to it.

    Attributes:
        closure: ``step`` is given a function that evaluates J and ∇J, and calls it as often as it
            likes, always on the same batch; without, gradients are ready before ``step``.
        train_eval_modes: ``train()`` and ``eval()`` move the weights between where gradients are
            taken and where the risk is measured.
        clip: the gradient may be clipped between backward and step.
        groups: may be given more than one parameter group.
        full_batch: right only on the whole training set.
        scaler: works under a gradient scaler (16-bit training).
        projection: the weights may be moved into a feasible set after a step. Not where a step is
            chosen by how far J falls, or by curvature remembered from the last one: P(w + td) is
            another point than the one that was looked at, and where both meet need not be a
            minimum of J on the set.
        gradient: computes ∇J; the norm it has when a step begins is known then.
        curvature: ``step`` is given J on this batch with its curvature, a
            `truerisk.core.curvature_oracle.CurvatureOracle`.
        create_graph: differentiates the gradient again, so backward must keep its graph.
        common_hyperparameters: hyperparameters that every parameter group must have in common.
    """

    closure: bool = False
    train_eval_modes: bool = False
    clip: bool = True
    groups: bool = True
    full_batch: bool = False
    scaler: bool = True
    projection: bool = True
    gradient: bool = True
    curvature: bool = False
    create_graph: bool = False
    common_hyperparameters: tuple[str, ...] = ()


_LINE_SEARCH = Needs(closure=True, clip=False, groups=False, scaler=False, projection=False)
_SECOND_ORDER = Needs(clip=False, scaler=False, create_graph=True)
# it keeps one estimate of the distance to the solution, and so one step length; what the estimate
# is made with is read from the first group or the last
_DISTANCE = Needs(
    common_hyperparameters=(
        *("lr", "betas", "beta3", "d", "d0", "d_max", "d_coef", "growth_rate"),
        *("bias_correction", "safeguard_warmup"),
    )
)

LIBRARY_NEEDS = {
    "torch.LBFGS": _LINE_SEARCH,
    "pytorch_optimizer.LBFGS": _LINE_SEARCH,
    "pytorch_optimizer.AliG": Needs(closure=True, clip=False, scaler=False),
    "pytorch_optimizer.AdaHessian": _SECOND_ORDER,
    "pytorch_optimizer.SophiaH": _SECOND_ORDER,
    "pytorch_optimizer.Prodigy": _DISTANCE,
}
"""Needs of library classes that cannot be told from their ``step`` and methods."""


def needs_of(factory: Callable[..., Any]) -> Needs:
    """Return what an optimizer class, or a ``functools.partial`` of one, needs.

    A ``needs`` attribute of the class comes first, then a table of library classes. Otherwise a
    ``step`` whose closure has no default gets one (with no clipping in between, no gradient scaler
    and no projection, as it may be a line search), and ``train`` and ``eval`` methods are called.

    >>> import torch
    >>> needs_of(torch.optim.Adam) == Needs()
    True
    >>> needs_of(functools.partial(torch.optim.LBFGS, lr=1)).closure
    True
    """
    # a configured optimizer is a partial of its class
    while isinstance(factory, functools.partial):
        factory = factory.func
    declared = getattr(factory, "needs", None)
    if isinstance(declared, Needs):
        return declared
    library = getattr(factory, "__module__", "").partition(".")[0]
    name = f"{library}.{getattr(factory, '__name__', '')}"
    if name in LIBRARY_NEEDS:
        return LIBRARY_NEEDS[name]
    return _infer_needs(factory)


def _infer_needs(factory: Callable[..., Any]) -> Needs:
    closure = _requires_closure(getattr(factory, "step", None))
    modes = all(callable(getattr(factory, name, None)) for name in ("train", "eval"))
    free = not closure
    return Needs(closure=closure, train_eval_modes=modes, clip=free, scaler=free, projection=free)


def _requires_closure(step: Callable[..., Any] | None) -> bool:
    if step is None:
        return False
    parameter = inspect.signature(step).parameters.get("closure")
    # torch's base class has an optional closure, which most optimizers never need
    return parameter is not None and parameter.default is parameter.empty


def refuse_shards(optimizer: str, params: Iterable[Any]) -> None:
    """Refuse parameters of which each process has only a part (trainer=fsdp).

    Args:
        optimizer: its name, for the message.
        params: tensors.

    Raises:
        ConfigError: one of them is a shard.
    """
    # a DTensor is told by its method: the class is private in some versions of torch
    if any(hasattr(p, "full_tensor") for p in params):
        raise ConfigError(
            f"{optimizer} needs whole parameters, and trainer=fsdp gives each process a "
            "part of them: use trainer=ddp"
        )
