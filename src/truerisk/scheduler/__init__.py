"""Learning-rate schedules, in optimizer steps of a run whose length is known."""

from truerisk.scheduler.cyclic import Cyclic, OneCycle
from truerisk.scheduler.decay import Constant, InverseSqrt, WarmupStableDecay
from truerisk.scheduler.schedule import Schedule

__all__ = ["Constant", "Cyclic", "InverseSqrt", "OneCycle", "Schedule", "WarmupStableDecay"]
