"""Statistics of forward passes: held still where a step looks again, or renewed for an average."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
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
    """What a forward pass in training mode would move stays.

    Batch norm normalises by the batch, but its running statistics do not move; spectral norm
    divides by the singular value it has found, without another round of power iteration.
    """
    with ExitStack() as stack:
        stack.enter_context(_still_norms(model))
        stack.enter_context(_still_spectra(model))
        yield


@contextmanager
def _still_spectra(model: nn.Module) -> Iterator[None]:
    spectra = [m for m in model.modules() if isinstance(m, _SpectralNorm)]
    rounds = [m.n_power_iterations for m in spectra]
    for m in spectra:
        m.n_power_iterations = 0
    try:
        yield
    finally:
        for m, n in zip(spectra, rounds, strict=True):
            m.n_power_iterations = n


@contextmanager
def _still_norms(model: nn.Module) -> Iterator[None]:
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
