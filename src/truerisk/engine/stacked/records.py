"""What is measured of the members of a block, kept and written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.errors import Diverged
from truerisk.engine import nonfinite
from truerisk.engine.lightning import Best
from truerisk.engine.stacked.files import Files
from truerisk.engine.stacked.hooks import standing
from truerisk.engine.stacked.measuring import Measuring
from truerisk.engine.stacked.member import Member
from truerisk.engine.tolerance import reached
from truerisk.risk.estimate import Measurement, beside, gap, numbers

if TYPE_CHECKING:
    from truerisk.engine.stacked.block import Block

FINAL = ("test", "true", "bayes")
"""What only the end of a run measures."""


class Records:
    """Measures a block's members, keeps their best weights, and ends their runs."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.measuring = Measuring(block.members, block.feeds)
        self.files = [Files(member, resumed=member.count > 0) for member in block.members]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.measuring = self.measuring.rows(rows)
        self.files = [self.files[row] for row in rows]

    def start(self) -> None:
        """Measure the initial weights, as epoch 0."""
        self.block._train_mode(False)
        self._record(range(len(self.files)))
        for member in self.block.members:
            member.call("on_train_epoch_start")

    def epoch(self, last: bool) -> None:
        """Measure the epoch where that is due, and end the runs that are over."""
        due = last or self.block.epoch % self.block.members[0].recipe.risk.every == 0
        members = self.block.members
        self._record([k for k, m in enumerate(members) if due or m.trainer.should_stop])
        for member in self.block.members:
            member.come()
        for member in self.block.members:
            member.sums.clear()
            member.call("on_train_epoch_end", monitors=True)
        self._end([k for k, m in enumerate(self.block.members) if last or m.trainer.should_stop])

    def _record(self, rows: Sequence[int]) -> None:
        block, bad = self.block, {}
        if not rows:
            return
        state = standing(block.stack)
        with block.members[0].place.computing():
            found = self.measuring.epoch(block.objective, state)
        for k in rows:
            block.members[k].epoch = block.epoch
            if math.isfinite(found[k][1].risk.measured().value):
                self._keep_record(k, state, found[k])
            else:
                bad[k] = self._error(k)
        self.diverged(bad)
        block.stack.read_hyperparameters()

    def _error(self, k: int) -> Diverged:
        self.block.stack.write_back(k)
        bad = nonfinite.first_bad_weight(self.block.members[k].recipe.model)
        return Diverged(self.block.count, bad or "the validation risk")

    def _keep_record(
        self, k: int, state: Mapping[str, Tensor], found: tuple[Measurement, Measurement]
    ) -> None:
        member, gauge = self.block.members[k], self.measuring.gauges[k]
        metrics = beside(*found, member.epoch, (gauge.known("train"), gauge.known("val")))
        risk = metrics["risk/val"].value
        if member.best is None or risk < member.best.risk:
            kept = {name: state[name][k].clone() for name in self.block.stack.shapes}
            member.best = Best(risk, member.epoch, member.count, kept)
        member.schedule.step_epoch(risk)
        rates = {f"lr/{i}": float(group["lr"]) for i, group in enumerate(member.groups)}
        values = numbers(metrics, rates | member.sums.means())
        self.files[k].log(values)
        member.watch(values)

    # --- the end of a run ---------------------------------------------------------------------

    def diverged(self, errors: Mapping[int, Diverged]) -> None:
        """End the runs of the members that are no longer finite."""
        if errors:
            self._finish(list(errors), {k: ("diverged", str(e)) for k, e in errors.items()})

    def _end(self, rows: Sequence[int]) -> None:
        self.block.bring_back(rows)
        for k in rows:
            self.files[k].save()
        members = self.block.members
        self._finish(rows, {k: ("finished", reached(members[k].trainer)) for k in rows})

    def _finish(self, rows: Sequence[int], ends: Mapping[int, tuple[str, str]]) -> None:
        """Measure the best weights of some members, write it all down, and let them go."""
        if not rows:
            return
        best = [k for k in rows if self.block.members[k].best is not None]
        self._measure_best(best)
        for k in rows:
            if k in best:
                self.files[k].save_best()
                self._log_final(self.block.members[k], self.files[k])
            self.files[k].close(*ends[k])
        self.block.keep([k for k in range(len(self.files)) if k not in rows])

    def _measure_best(self, rows: Sequence[int]) -> None:
        """Measure the best weights on all the samples there are."""
        members = [self.block.members[k] for k in rows]
        if not members:
            return
        measuring, objective = self.measuring.rows(rows), self.block.objective.select_rows(rows)
        states = [m.best.state for m in members if m.best is not None]
        state = {name: torch.stack([own[name] for own in states]) for name in states[0]}
        self.block._train_mode(False)
        with members[0].place.computing():
            for name in self.block.feeds:
                found = measuring.split(name, objective, state)
                for member, gauge, split in zip(members, measuring.gauges, found, strict=True):
                    epoch = member.best.epoch if member.best else None
                    member.final |= split.named(name, epoch, gauge.known(name))
            for member, gauge in zip(members, measuring.gauges, strict=True):
                _measure_true(member, gauge)
        for member in members:
            member.final["risk/gap"] = gap(member.final["risk/train"], member.final["risk/val"])
        self.block._train_mode(True)

    def _log_final(self, member: Member, files: Files) -> None:
        new = {k: m for k, m in member.final.items() if k.rpartition("/")[2] in FINAL}
        files.log(numbers(new, {}), member.best.epoch if member.best else member.epoch)


def _measure_true(member: Member, gauge: Any) -> None:
    """The risk under P, where P is known, as an ordinary run measures it."""
    if member.recipe.data.population is not None and member.best is not None:
        member.recipe.model.load_state_dict(member.best.state)
        member.recipe.model.eval()
        member.final |= gauge.finally_("true", member.best.epoch)
