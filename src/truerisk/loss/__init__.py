"""Losses: the surrogate l(w; x, y) that training lowers."""

from truerisk.loss.hinge import Hinge
from truerisk.loss.surrogate import Surrogate, adapt_loss
from truerisk.loss.value import Value

__all__ = ["Hinge", "Surrogate", "Value", "adapt_loss"]
