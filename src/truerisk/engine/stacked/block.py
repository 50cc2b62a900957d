"""Training a block of members as one stacked model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.errors import Diverged
from truerisk.engine import nonfinite
from truerisk.engine.stacked.hooks import after_step, edited
from truerisk.engine.stacked.member import Member
from truerisk.engine.stacked.records import Records
from truerisk.engine.stacked.stack import Stack
from truerisk.engine.stacked.stacked_data import StackedPlan, StackedSplit
from truerisk.engine.stacked.stacked_objective import StackedObjective
from truerisk.engine.stacked.substitution import differing_numbers
from truerisk.engine.stacked.twins import share_schedules, stepped
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.traced_function import without_autocast

Micro = tuple[Tensor, float]


class Block:
    """Members that stand at the same step and train together, until each has ended by itself.

    A step is an ordinary run's (`truerisk.engine.step`), with every operation on all members at
    once: gradient, check, clip, update, schedule, project, average.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        share_schedules(members)
        self.stack = Stack(members)
        self.masks = DropoutStreams([m.recipe.streams.noise for m in members])
        self.masks.load_state_dict([m.masks for m in members])
        recipes = [m.recipe for m in members]
        self.objective = StackedObjective(
            recipes[0], differing_numbers(recipes), self.masks, self.stack.flat[0]
        )
        keys = [m.data_key for m in members]
        splits = {n: [getattr(r.data, n) for r in recipes] for n in members[0].splits()}
        self.feeds = {name: StackedSplit(own, keys) for name, own in splits.items()}
        self.orders = StackedPlan([m.plan for m in members])
        self.columns = list(range(len(members)))
        first = members[0]
        self.epoch, self.step_in_epoch, self.count = first.epoch, first.step_in_epoch, first.count
        self.horizon = first.horizon
        self.records = Records(self)

    @property
    def members(self) -> list[Member]:
        """Those that still train."""
        return self.stack.members

    def train(self) -> Iterable[int]:
        """Train; after each step, gives how many members took it."""
        for member in self.members:
            member.call("on_train_start")
        if self.count == 0:
            self.records.start()
        while self.members:
            yield from self._rest_of_epoch()
            if self.members:
                self._end_epoch()

    def _rest_of_epoch(self) -> Iterable[int]:
        self._train_mode(True)
        self.orders.keep(self.columns)
        self.columns = list(range(len(self.members)))
        left = min(self.orders.steps_per_epoch - self.step_in_epoch, self.horizon - self.count)
        steps = self.orders.epoch(self.epoch, self.step_in_epoch)
        for _, step in zip(range(left), steps, strict=False):
            self._step([(self._own(index), share) for index, share in step])
            self.step_in_epoch += 1
            yield len(self.members)
            if not self.members:
                return

    def _own(self, index: Tensor) -> Tensor:
        """The samples [K, n] of those that still train, of all who began the epoch [n, K]."""
        whole = index.shape[1] == len(self.columns)
        return index.T if whole else index[:, self.columns].T

    def _train_mode(self, training: bool) -> None:
        self.objective.objective.model.train(training)

    def _step(self, micros: Sequence[Micro]) -> None:
        batches = [
            (edited(self.members, self.feeds["train"].gather_batch(i)), s) for i, s in micros
        ]
        gradients = self._checked(*self._gradient(batches), batches[-1][0])
        if not self.members:
            return
        self._clip(gradients)
        with torch.no_grad(), without_autocast(gradients[0].device.type):
            self.stack.update(gradients, self.count + 1)
        self.count += 1
        for member in self.members:
            member.count = self.count
        if stepped(self.members):
            self.stack.read_hyperparameters()
        after_step(self.stack)

    def _gradient(
        self, batches: Sequence[tuple[Batch, float]]
    ) -> tuple[list[Tensor], Tensor, list[tuple[list[float], int]]]:
        """∇J of every member [K, P], J [K], and the risks of the micro-batches."""
        total: list[Tensor] = []
        objective, risks = torch.zeros(()), []
        for batch, share in batches:
            value, risk, found = self.objective.gradient(
                self.stack.params, self.stack.buffers, batch, share
            )
            flat = self._flat(found)
            total = [a + b for a, b in zip(total, flat, strict=True)] if total else flat
            objective = objective.to(value.device) + value
            risks.append((risk.tolist(), batch.x.shape[1]))
        return total, objective, risks

    def _flat(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients as the optimizer's groups have the parameters, [K, P] each."""
        named = dict(zip(self.stack.params, gradients, strict=True))
        return [torch.cat([named[n].flatten(1) for n in group], 1) for group in self.stack.names]

    def _checked(
        self,
        gradients: list[Tensor],
        objective: Tensor,
        risks: Sequence[tuple[list[float], int]],
        batch: Batch,
    ) -> list[Tensor]:
        """The gradients of the members whose J and ∇J are finite; the others end here."""
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients])
        self.norm = torch.linalg.vector_norm(norms, dim=0) if len(norms) > 1 else norms[0]
        values, sizes = objective.tolist(), self.norm.tolist()
        bad = []
        for k, member in enumerate(self.members):
            for row, samples in risks:
                member.sums.loss_sum += row[k] * samples
                member.sums.samples += samples
            if math.isfinite(values[k]) and math.isfinite(sizes[k]):
                member.sums.objective = values[k]
                member.sums.norm(sizes[k])
            else:
                bad.append(k)
        if not bad:
            return gradients
        self.records.diverged({k: self._error(k, gradients, batch) for k in bad})
        left = [k for k in range(len(values)) if k not in bad]
        self.norm = self.norm[left]
        return [g[left] for g in gradients]

    def _error(self, k: int, gradients: Sequence[Tensor], batch: Batch) -> Diverged:
        """What went bad in member k, found as an ordinary run finds it."""
        self.stack.write_back(k)
        member = self.members[k]
        for group, flat in zip(member.optimizer.param_groups, gradients, strict=True):
            parts = flat[k].split([p.numel() for p in group["params"]])
            for p, part in zip(group["params"], parts, strict=True):
                p.grad = part.view_as(p)
        return Diverged(self.count + 1, nonfinite.culprit(member.recipe.model.train(), batch.x[k]))

    def _clip(self, gradients: Sequence[Tensor]) -> None:
        clips = [m.recipe.step.clip for m in self.members]
        if clips[0].norm is not None:
            most = self.norm.new_tensor([clip.norm for clip in clips])
            share = (most / (self.norm + 1e-6)).clamp(max=1.0)
            for g in gradients:
                g.mul_(share[:, None])
        if clips[0].value is not None:
            for g in gradients:
                bound = g.new_tensor([clip.value for clip in clips])[:, None]
                torch.minimum(torch.maximum(g, -bound, out=g), bound, out=g)

    def _end_epoch(self) -> None:
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        for member in self.members:
            member.call("on_train_epoch_end", monitors=False)
        self._train_mode(False)
        self.records.epoch(last=self.count >= self.horizon)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        if len(rows) == len(self.members):
            return
        self.stack.keep(rows)
        self.masks.keep(rows)
        self.objective = self.objective.select_rows(rows)
        self.feeds = {name: feed.select_rows(rows) for name, feed in self.feeds.items()}
        self.columns = [self.columns[row] for row in rows]
        self.records.keep(rows)

    def save(self, status: str = "", reason: str = "") -> None:
        """Write every member's checkpoint, and how it stands if it is to go on another time."""
        if not self.members:
            return
        self.bring_back(range(len(self.members)))
        for member, files in zip(self.members, self.records.files, strict=True):
            files.save()
            if status:
                files.csv.finalize(status)
                member.run.set_status(status, reason)

    def bring_back(self, rows: Iterable[int]) -> None:
        """Give members their weights, their optimizer's state and their place in the run."""
        masks = self.masks.state_dict()
        for k in rows:
            self.stack.write_back(k)
            self.members[k].masks = masks[k]
            self.members[k].epoch, self.members[k].step_in_epoch = self.epoch, self.step_in_epoch
