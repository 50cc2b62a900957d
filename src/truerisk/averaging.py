"""Batch-norm statistics for averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn


@torch.no_grad()
def refreshed(
    model: nn.Module, state: Mapping[str, Tensor], inputs: Iterable[Tensor]
) -> Mapping[str, Tensor]:
    """The averaged ``state`` with running statistics measured anew on ``inputs``.

    The statistics of an average of weights are not the average of their statistics
    (Izmailov et al. 2018, §3.2). A model without batch norm keeps its state.
    """
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return state
    twin = copy.deepcopy(model)
    twin.load_state_dict(dict(state))
    update_bn(inputs, twin)
    return twin.state_dict()
