"""Schedules, one for all members whose learning rates move alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from torch.optim.lr_scheduler import ReduceLROnPlateau

from truerisk.engine.stacked.member import Member


def share_schedules(members: Sequence[Member]) -> None:
    """Give members with equal numbers one schedule between them.

    Moving hundreds of torch's schedules takes longer than a step. One that follows a member's own
    validation risk stays its own.
    """
    leaders: dict[str, Member] = {}
    for member in members:
        if not isinstance(member.schedule.target, ReduceLROnPlateau):
            member.schedule = leaders.setdefault(_key(member), member).schedule


def _key(member: Member) -> str:
    parts = [member.cfg.scheduler, member.cfg.optimizer, member.cfg.param_groups]
    plain = [OmegaConf.to_container(part, resolve=True) for part in parts]
    return json.dumps([plain, member.horizon, member.count], sort_keys=True)


def stepped(members: Sequence[Member]) -> bool:
    """Move every schedule to the next step; whether any number has changed."""
    changed = False
    for schedule in {id(member.schedule): member.schedule for member in members}.values():
        before = _moved(schedule.optimizer)
        schedule.step()
        changed = changed or _moved(schedule.optimizer) != before
    return changed


def _moved(optimizer: Any) -> list[tuple[Any, ...]]:
    """What schedules move."""
    names = ("lr", "momentum", "betas")
    return [tuple(group.get(name) for name in names) for group in optimizer.param_groups]
