"""Optimizers, what each needs of the step, and the parameter groups they work on."""

from truerisk.optimizer.gd import GD
from truerisk.optimizer.muon import Muon
from truerisk.optimizer.needs import Needs, needs_of
from truerisk.optimizer.parameter_groups import parameter_groups
from truerisk.optimizer.sam import SAM

__all__ = ["GD", "SAM", "Muon", "Needs", "needs_of", "parameter_groups"]
