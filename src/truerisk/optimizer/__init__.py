"""Optimizers, what each needs of the step, and the parameter groups they work on."""

from truerisk.optimizer.gradient_descent import (
    GD,
    GDBacktracking,
    GDExact,
    GDWolfe,
    PerturbedGD,
    SGDArmijo,
)
from truerisk.optimizer.hill_climbing import HillClimbing
from truerisk.optimizer.kfac import KFAC
from truerisk.optimizer.lbfgs_backtracking import LBFGSBacktracking
from truerisk.optimizer.muon import Muon
from truerisk.optimizer.needs import Needs, needs_of
from truerisk.optimizer.newton import GaussNewton, Newton, NewtonCG
from truerisk.optimizer.parameter_groups import parameter_groups
from truerisk.optimizer.sam import SAM
from truerisk.optimizer.shampoo import Shampoo

__all__ = [
    "GD",
    "KFAC",
    "SAM",
    "GDBacktracking",
    "GDExact",
    "GDWolfe",
    "GaussNewton",
    "HillClimbing",
    "LBFGSBacktracking",
    "Muon",
    "Needs",
    "Newton",
    "NewtonCG",
    "PerturbedGD",
    "SGDArmijo",
    "Shampoo",
    "needs_of",
    "parameter_groups",
]
