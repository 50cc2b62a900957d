"""Where the descent starts: callables ``(model, x=None) -> None`` that set weights in place."""

from truerisk.initializer.initializer import Initializer
from truerisk.initializer.lsuv import LSUV
from truerisk.initializer.schemes import identity_, sparse_, truncated_normal_

__all__ = ["LSUV", "Initializer", "identity_", "sparse_", "truncated_normal_"]
