"""Learning-rate schedules, in optimizer steps of a run whose length is known."""

from truerisk.scheduler.curves import (
    Constant,
    Cyclic,
    InverseSqrt,
    OneCycle,
    WarmupStableDecay,
)
from truerisk.scheduler.schedule import Plateau, Schedule

__all__ = [
    "Constant",
    "Cyclic",
    "InverseSqrt",
    "OneCycle",
    "Plateau",
    "Schedule",
    "WarmupStableDecay",
]
