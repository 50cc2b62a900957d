"""Diagnostics: instruments that look at a run and leave it as it is."""

from truerisk.diagnostics.activations import Activations
from truerisk.diagnostics.attention import Attention
from truerisk.diagnostics.critical_point import CriticalPoint
from truerisk.diagnostics.curvature import Curvature, Flatness
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.feature_change import FeatureChange
from truerisk.diagnostics.gradient_flow import GradientFlow
from truerisk.diagnostics.gradient_noise import GradientNoise
from truerisk.diagnostics.landscape import Landscape
from truerisk.diagnostics.lr_range import LrRange
from truerisk.diagnostics.numerics import Numerics
from truerisk.diagnostics.recurrence import Recurrence
from truerisk.diagnostics.spectrum import Spectrum
from truerisk.diagnostics.step_effect import Taylor, UpdateSize

__all__ = [
    "Activations",
    "Attention",
    "CriticalPoint",
    "Curvature",
    "Diagnostic",
    "FeatureChange",
    "Flatness",
    "GradientFlow",
    "GradientNoise",
    "Landscape",
    "LrRange",
    "Numerics",
    "Recurrence",
    "Spectrum",
    "Taylor",
    "UpdateSize",
    "Values",
]
