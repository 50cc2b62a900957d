"""What must hold still while J is differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _SpectralNorm

from truerisk.calculus.normalization import written_out


@contextmanager
def still(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Make J a smooth function of the weights alone, which leaves nothing behind in the model.

    * Batch norm while training normalises by the batch, and its running statistics do not move.
    * Spectral normalization keeps its singular vectors, instead of a round of power iteration.
    * Kernels that cannot be differentiated twice are left aside: fused attention, and cuDNN's
      recurrent layers.
    * So is a compiled forward pass, which can be differentiated only once.
    * Autocast is off: curvature is computed in the precision of the parameters.
    * The global generator of torch is given back as it was.
    """
    with ExitStack() as stack:
        stack.enter_context(written_out(model))
        stack.enter_context(_still_singular_vectors(model))
        stack.enter_context(_not_compiled(model))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(m, nn.RNNBase) for m in model.modules()):
            stack.enter_context(cudnn.flags(enabled=False))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        devices = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices))
        yield


@contextmanager
def _not_compiled(model: nn.Module) -> Iterator[None]:
    compiled: Any = model._compiled_call_impl
    model._compiled_call_impl = None
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


@contextmanager
def _still_singular_vectors(model: nn.Module) -> Iterator[None]:
    moving = [m for m in model.modules() if isinstance(m, _SpectralNorm) and m.training]
    for m in moving:
        m.training = False
    try:
        yield
    finally:
        for m in moving:
            m.training = True
