"""What the regularizers' tests share."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from truerisk.core.batch import Batch
from truerisk.regularizer import Forward


def _look(model, x, y, params=None, loss=None):
    """What a penalty sees of a model on a batch."""
    params = dict(model.named_parameters()) if params is None else params
    loss = loss or (lambda outputs, y: nn.functional.cross_entropy(outputs, y, reduction="none"))

    def losses_at(x):
        return loss(functional_call(model, dict(params), (x,)), y)

    return Forward(params, Batch(x, y), functional_call(model, dict(params), (x,)), losses_at)


@pytest.fixture
def look():
    """The function that shows a model and a batch as a penalty sees them."""
    return _look


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.fixture
def samples():
    torch.manual_seed(1)
    return torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))


@pytest.fixture
def forward(mlp, samples):
    return _look(mlp, *samples)
