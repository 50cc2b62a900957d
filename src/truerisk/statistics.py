"""Batch-norm statistics: held still where a step looks again, renewed for averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


@torch.no_grad()
def refreshed(
    model: nn.Module, state: Mapping[str, Tensor], inputs: Iterable[Tensor]
) -> Mapping[str, Tensor]:
    """The averaged ``state`` with running statistics measured anew on ``inputs``.

    The statistics of an average of weights are not the average of their statistics
    (Izmailov et al. 2018, §3.2). A model without batch norm keeps its state.
    """
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return state
    twin = copy.deepcopy(model)
    twin.load_state_dict(dict(state))
    update_bn(inputs, twin)
    return twin.state_dict()


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises by the batch, but its running statistics do not move."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    counts = [counter.clone() for counter in counters]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for counter, count in zip(counters, counts, strict=True):
            counter.copy_(count)
