"""What a diagnostic sees of a run at one of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from truerisk.calculus import Hessian, Matrix, Operator, Point
from truerisk.calculus.gradient import Slope, value_and_gradient
from truerisk.core import rng
from truerisk.core.batch import Batch

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from truerisk.engine.lightning import RiskModule
    from truerisk.objective import Objective

BATCH = 1000
"""Samples in one forward pass."""

SMALL = 256
"""Weights up to which the Hessian is written out, so that nothing about it is estimated."""


class Moment:
    """A run at one step: its model in eval mode, and what several diagnostics compute only once.

    The weights are those that training moves, not an average of them. Derivatives are those of J in
    eval mode on the fixed part of the training set that risks are measured on.
    """

    def __init__(self, module: RiskModule, gradients: dict[str, Tensor]) -> None:
        self.module, self.gradients = module, gradients
        self.step = module.take_step.count

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.module.model

    @property
    def objective(self) -> Objective:
        """J as a pure function."""
        return self.module.objective

    @property
    def params(self) -> Mapping[str, Tensor]:
        """The trainable parameters, by name."""
        return self.module.take_step.named

    def batches(self, size: int = BATCH, most: int | None = None) -> Iterator[Batch]:
        """The measured part of the training set, or its first samples, cut into batches."""
        index = self.module.gauge.subset[:most]
        return self.module.data.train.batches(index.split(size))

    def show(self, samples: int, hooks: Iterable[RemovableHandle]) -> None:
        """Take some samples through the model in the run's precision; then remove the hooks."""
        with ExitStack() as stack:
            for hook in hooks:
                stack.callback(hook.remove)
            with self.precision(), torch.no_grad():
                for batch in self.batches(samples, most=samples):
                    self.model(batch.x)

    @cached_property
    def point(self) -> Point:
        """J around the present weights."""
        if len(self.module.gauge.subset) <= BATCH:
            return Point(self.objective, None, list(self.batches()))
        return Point(self.objective, None, self.batches)

    @cached_property
    def slope(self) -> Slope:
        """J and its gradient at the present weights."""
        return value_and_gradient(self.point)

    @cached_property
    def hessian(self) -> Operator:
        """∇²J at the present weights, written out where it is small."""
        h = Hessian(self.point)
        return Matrix(h.dense()) if h.size <= SMALL else h

    @cached_property
    def finite(self) -> bool:
        """Whether J, its gradient and a product with its Hessian are, in a run that may diverge."""
        value, gradient = self.slope
        parts = (value, gradient, self.hessian @ gradient)
        return all(bool(part.isfinite().all()) for part in parts)

    def precision(self) -> AbstractContextManager[None]:
        """The run's own precision; a look is in the precision of the weights otherwise."""
        return self.module.trainer.precision_plugin.forward_context()


@contextmanager
def moment(module: RiskModule) -> Iterator[Moment]:
    """A look at a run, after which it goes on as if there had been none."""
    model = module.model
    device = next(model.parameters()).device
    training = [m for m in model.modules() if m.training]
    buffers = [(b, b._version, b.clone()) for b in model.buffers()]
    named = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in named.items()}
    with ExitStack() as stack:
        stack.enter_context(rng.fork_state())
        stack.enter_context(module.trainer.precision_plugin.forward_context())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        try:
            model.eval()
            module.agree_on_buffers()
            for p in named.values():
                p.grad = None
            yield Moment(module, {n: g for n, g in gradients.items() if g is not None})
        finally:
            for name, p in named.items():
                p.grad = gradients[name]
            for m in training:
                m.training = True
            with torch.no_grad():
                for buffer, version, old in buffers:
                    if buffer._version != version:  # a copy would spoil a graph yet to be used
                        buffer.copy_(old)
