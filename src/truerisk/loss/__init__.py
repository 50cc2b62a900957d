"""Losses: the surrogate l(w; x, y) that training lowers."""

from truerisk.loss.losses import Hinge, Value
from truerisk.loss.surrogate import Surrogate, adapt_loss, find_suited_tasks

__all__ = ["Hinge", "Surrogate", "Value", "adapt_loss", "find_suited_tasks"]
