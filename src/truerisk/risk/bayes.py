"""The risk no predictor can go below, where P is known."""

from __future__ import annotations

from torch import Tensor, nn

from truerisk.data import DataModule
from truerisk.loss import Surrogate

Exact = nn.MSELoss | nn.L1Loss | nn.HuberLoss | nn.CrossEntropyLoss | nn.BCEWithLogitsLoss


def attains_bayes_risk(surrogate: Surrogate) -> bool:
    """Tell whether `predict_bayes` minimises this surrogate's risk, and not its 0–1 risk alone.

    Log-odds minimise cross-entropy (without label smoothing) and logistic loss; the mean minimises
    squared loss and, as the noise of every known P here is symmetric, absolute and Huber loss.
    """
    # a smoothed target is not P's, so its best outputs are others
    smoothing = getattr(surrogate.loss, "label_smoothing", 0.0)
    return isinstance(surrogate.loss, Exact) and not smoothing


def predict_bayes(data: DataModule, surrogate: Surrogate, x: Tensor) -> Tensor:
    """Return outputs [n, output_size] of the Bayes predictor.

    Args:
        data: whose population is known.
        surrogate: the loss that the outputs are for.
        x: inputs [n, *shape] as the model sees them.
    """
    return surrogate.task.bayes_outputs(data.population, data.raw(x), surrogate).to(x)
