"""Losses: the surrogate l(w; x, y) that training lowers."""

from truerisk.loss.class_weights import read_class_weights
from truerisk.loss.losses import Hinge, Ordinal, Poisson, Quantile, Squared, Value
from truerisk.loss.surrogate import Surrogate, adapt_loss, find_suited_tasks

__all__ = [
    "Hinge",
    "Ordinal",
    "Poisson",
    "Quantile",
    "Squared",
    "Surrogate",
    "Value",
    "adapt_loss",
    "find_suited_tasks",
    "read_class_weights",
]
