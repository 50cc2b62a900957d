"""J(w) = g(w) + Σ λR(w) as a pure function of the parameters, and its derivatives on a batch."""

from truerisk.objective.objective import Objective, Value, gradient

__all__ = ["Objective", "Value", "gradient"]
