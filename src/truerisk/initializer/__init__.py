"""Where the descent starts: callables ``(model, x=None) -> None`` that set weights in place."""

from truerisk.initializer.initializer import Initializer, identity_, sparse_, truncated_normal_
from truerisk.initializer.lsuv import LSUV
from truerisk.initializer.pretrained import Pretrained

__all__ = ["LSUV", "Initializer", "Pretrained", "identity_", "sparse_", "truncated_normal_"]
