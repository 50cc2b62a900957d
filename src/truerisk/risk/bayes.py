"""The risk no predictor can go below, where P is known."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from truerisk.data import DataModule
from truerisk.loss import Surrogate

Exact = nn.MSELoss | nn.L1Loss | nn.HuberLoss | nn.CrossEntropyLoss | nn.BCEWithLogitsLoss


def attains_bayes_risk(surrogate: Surrogate) -> bool:
    """Whether `optimal_outputs` minimise this surrogate's risk, and not its 0–1 risk alone.

    Log-odds minimise cross-entropy (without label smoothing) and logistic loss; the mean minimises
    squared loss and, as the noise of every known P here is symmetric, absolute and Huber loss.
    """
    smoothing = getattr(surrogate.loss, "label_smoothing", 0.0)
    return isinstance(surrogate.loss, Exact) and not smoothing


def optimal_outputs(data: DataModule, surrogate: Surrogate, x: Tensor) -> Tensor:
    """Outputs [n, output_size] of the Bayes predictor for inputs ``x`` as the model sees them."""
    population: Any = data.population
    raw = data.raw(x)
    if surrogate.task == "regression":
        return population.mean(raw).to(x)
    probabilities = population.bayes(raw)
    if isinstance(surrogate.loss, nn.BCEWithLogitsLoss):
        odds = probabilities.logit()
        return (odds[:, 1:] if surrogate.output_size == 1 else odds).to(x)
    return probabilities.log().to(x)
