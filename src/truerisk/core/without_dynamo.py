"""Train without TorchDynamo, which takes a second and 70 MB of each process to load.

torch 2.9 to 2.13 loads it where an optimizer gets its parameters, gives or takes its state, and
steps, and where it works out the shape of what an operation gives, to tell it that it shall not
compile them, whether or not anything is ever compiled.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

DYNAMO = "torch._dynamo"


@functools.cache
def leave_dynamo_out() -> None:
    """Let torch's optimizers work without TorchDynamo, until something else has loaded it."""
    for function in vars(Optimizer).values():
        if _comes_from(function, "torch._compile"):
            # looked up by torch before it makes one itself
            function.__wrapped__.__dynamo_disable = _mark_late(function.__wrapped__)
    for kind in vars(torch.optim).values():
        step = vars(kind).get("step") if isinstance(kind, type) else None
        # torch's mark of one that an optimizer was made with before, which has loaded it
        if _comes_from(step, Optimizer.__module__) and not hasattr(step, "hooked"):
            kind.step = _step_alone(step)


@functools.cache
def leave_dynamo_out_of_shapes() -> None:
    """Let operations on tensors without numbers (on ``meta``) work without it, likewise."""
    # torch makes them in many places, and none of its tables has all of them
    marked = _disable_dynamo(lambda: None).__code__
    for function in gc.get_referrers(marked):
        if isinstance(function, FunctionType):
            own = inspect.getclosurevars(function).nonlocals
            own["fn"].__dynamo_disable = _mark_late(own["fn"], own["recursive"])


def _comes_from(function: Any, module: str) -> bool:
    """Tell whether a function is what a decorator of a module's has made of another."""
    wrapper = isinstance(function, FunctionType) and hasattr(function, "__wrapped__")
    return wrapper and function.__globals__["__name__"] == module


def _mark_late(function: Any, recursive: bool = True) -> Callable[..., Any]:
    """Call a function that TorchDynamo shall not trace; tell it so once it is there.

    Args:
        function: that is called.
        recursive: whether what it calls is not traced either.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        # none either while another thread is loading it
        disable = getattr(sys.modules.get(DYNAMO), "disable", None)
        if disable is None:
            return function(*args, **kwargs)
        function.__dynamo_disable = disable(function, recursive, wrapping=False)
        return function.__dynamo_disable(*args, **kwargs)

    return call


def _step_alone(step: Any) -> Callable[..., Any]:
    """Step as torch does, which tells TorchDynamo where a graph would end."""

    @functools.wraps(step.__wrapped__)
    def stepped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if DYNAMO in sys.modules:
            return step(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step.__wrapped__(self, *args, **kwargs)

    return stepped
