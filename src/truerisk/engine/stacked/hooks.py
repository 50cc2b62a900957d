"""The regularizers' hooks on batches and weights, called member by member.

They are few, small and written for one run: a member's own are called on its own rows, with torch's
global generator at the member's own place in its stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.deterministic import refresh_statistics
from truerisk.engine.stacked.measuring import gauge
from truerisk.engine.stacked.member import Member
from truerisk.engine.stacked.stack import Stack


@contextmanager
def _noise(member: Member) -> Iterator[None]:
    """Draws inside the block come from the member's stream of noise."""
    before = torch.get_rng_state()
    torch.set_rng_state(member.noise)
    try:
        yield
    finally:
        member.noise = torch.get_rng_state()
        torch.set_rng_state(before)


def edited(members: Sequence[Member], batch: Batch) -> Batch:
    """The batches as the members' regularizers edit them."""
    if not members[0].recipe.hooks("edit_batch"):
        return batch
    rows = [_edited(m, Batch(batch.x[k], batch.y[k])) for k, m in enumerate(members)]
    joined: dict[str, Any] = {n: _joined([getattr(r, n) for r in rows]) for n in Batch.__slots__}
    return Batch(**joined)


def _edited(member: Member, batch: Batch) -> Batch:
    with _noise(member):
        for edit in member.recipe.hooks("edit_batch").values():
            batch = edit(batch)
    return batch


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.stack(tensors) if tensors else None


@torch.no_grad()
def after_step(stack: Stack) -> None:
    """Project the members' weights, and let averages take them in."""
    hooks = stack.members[0].recipe.hooks
    if hooks("project"):
        for k, member in enumerate(stack.members):
            for project in member.recipe.hooks("project").values():
                project(stack.view_params(k))
    if hooks("average"):
        whole = stack.collect_state()
        for k, member in enumerate(stack.members):
            state = {name: whole[name][k] for name in stack.shapes}
            for average in member.recipe.hooks("average").values():
                average(state, member.count)


def standing(stack: Stack) -> dict[str, Tensor]:
    """The weights and buffers that are measured and kept: averages where a member has them."""
    whole = stack.collect_state()
    if not stack.members[0].recipe.hooks("averaged"):
        return whole
    rows = [_standing(m, {n: t[k] for n, t in whole.items()}) for k, m in enumerate(stack.members)]
    return {name: torch.stack([row[name] for row in rows]) for name in whole}


def _standing(member: Member, own: dict[str, Tensor]) -> dict[str, Tensor]:
    for regularizer in member.recipe.regularizers.values():
        state = regularizer.averaged()
        if state is not None:
            if regularizer.refresh_statistics:
                inputs = gauge(member).training_inputs()
                state = refresh_statistics(member.recipe.model, state, inputs)
            return own | dict(state)
    return own
