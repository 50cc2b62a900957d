"""Derivatives of J, for any model, loss and penalty, over as many batches as the data has."""

from truerisk.calculus.condition import condition_number
from truerisk.calculus.convexity import Convexity, convexity
from truerisk.calculus.critical_point import CriticalPoint, classify
from truerisk.calculus.curvature import Curvature
from truerisk.calculus.density import Density, spectral_density
from truerisk.calculus.diagonal import diagonal
from truerisk.calculus.directions import (
    Principal,
    filter_normalized,
    principal_directions,
)
from truerisk.calculus.eigenvalues import (
    Eigenpairs,
    Extremes,
    extreme_eigenvalues,
    largest_eigenvalues,
)
from truerisk.calculus.estimate import Estimate
from truerisk.calculus.gauss_newton import GaussNewton
from truerisk.calculus.gradient import directional_derivative, gradient, value_and_gradient
from truerisk.calculus.hessian import Hessian
from truerisk.calculus.jacobian import jacobian
from truerisk.calculus.lanczos import lanczos
from truerisk.calculus.operator import Matrix, Operator
from truerisk.calculus.per_sample import per_sample_gradients
from truerisk.calculus.point import Point
from truerisk.calculus.scaled import Scaled
from truerisk.calculus.sharpness import Rise, ball_sharpness, box_sharpness
from truerisk.calculus.space import Space
from truerisk.calculus.step_size import optimal_step_size
from truerisk.calculus.surface import line, plane
from truerisk.calculus.taylor import Taylor, taylor
from truerisk.calculus.trace import hutch_plus_plus, hutchinson

__all__ = [
    "Convexity",
    "CriticalPoint",
    "Curvature",
    "Density",
    "Eigenpairs",
    "Estimate",
    "Extremes",
    "GaussNewton",
    "Hessian",
    "Matrix",
    "Operator",
    "Point",
    "Principal",
    "Rise",
    "Scaled",
    "Space",
    "Taylor",
    "ball_sharpness",
    "box_sharpness",
    "classify",
    "condition_number",
    "convexity",
    "diagonal",
    "directional_derivative",
    "extreme_eigenvalues",
    "filter_normalized",
    "gradient",
    "hutch_plus_plus",
    "hutchinson",
    "jacobian",
    "lanczos",
    "largest_eigenvalues",
    "line",
    "optimal_step_size",
    "per_sample_gradients",
    "plane",
    "principal_directions",
    "spectral_density",
    "taylor",
    "value_and_gradient",
]
