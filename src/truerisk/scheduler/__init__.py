"""Learning-rate schedules, in optimizer steps of a run whose length is known."""

from truerisk.scheduler.constant import Constant
from truerisk.scheduler.cyclic import Cyclic
from truerisk.scheduler.inverse_sqrt import InverseSqrt
from truerisk.scheduler.one_cycle import OneCycle
from truerisk.scheduler.schedule import Schedule
from truerisk.scheduler.warmup_stable_decay import WarmupStableDecay

__all__ = ["Constant", "Cyclic", "InverseSqrt", "OneCycle", "Schedule", "WarmupStableDecay"]
