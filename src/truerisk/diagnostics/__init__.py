"""Diagnostics: instruments that look at a run and leave it as it is."""

from truerisk.diagnostics.activations import Activations
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import GradientFlow
from truerisk.diagnostics.numerics import Numerics
from truerisk.diagnostics.update_size import UpdateSize

__all__ = [
    "Activations",
    "Diagnostic",
    "GradientFlow",
    "Numerics",
    "UpdateSize",
    "Values",
]
