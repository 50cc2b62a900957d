"""Where the descent starts: callables ``(model, x=None) -> None`` that set weights in place."""

from truerisk.initializer.initializer import Initializer, identity_, sparse_, truncated_normal_
from truerisk.initializer.lsuv import LSUV

__all__ = ["LSUV", "Initializer", "identity_", "sparse_", "truncated_normal_"]
