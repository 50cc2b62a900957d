"""Losses: the surrogate l(w; x, y) that training lowers."""

from truerisk.loss.hinge import Hinge
from truerisk.loss.surrogate import Surrogate, surrogate

__all__ = ["Hinge", "Surrogate", "surrogate"]
