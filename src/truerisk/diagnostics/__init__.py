"""Diagnostics: instruments that look at a run and leave it as it is."""

from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import GradientFlow

__all__ = ["Diagnostic", "GradientFlow", "Values"]
