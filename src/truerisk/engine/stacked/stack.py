"""The members' weights, buffers and optimizer state as the rows of a few tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.engine.stacked.member_code.compiled_function import (
    BoundCode,
    CompiledFunction,
    is_worth_compiling,
)
from truerisk.engine.stacked.stacked_run import StackedRun
from truerisk.engine.stacked.update_rules import (
    SINGLE,
    UPDATE_RULES,
    Hyperparameters,
    TensorRule,
)

Columns = Mapping[str, Tensor]
"""Numbers [K, 1] by name, as a group of an optimizer has them."""


class Stack:
    """K members of one shape.

    The parameters of one group of the optimizer lie side by side, [K, P], so that an update is a
    few operations however many layers there are. ``params`` shows them as the model has them, each
    [K, …]; gradients are taken with respect to those, and written to ``gradients`` where that can
    be.
    """

    def __init__(self, members: Sequence[StackedRun]) -> None:
        self.members = list(members)
        first = self.members[0]
        self.compiles = is_worth_compiling(first.horizon)
        self._updates: dict[Any, CompiledFunction] = {}
        self.rule = UPDATE_RULES[first.optimizer_target]
        self.names = [group["param_names"] for group in first.optimizer.param_groups]
        self.shapes = {n: p.shape for n, p in first.weights().items()}
        weights = [member.weights() for member in self.members]
        self.flat = [
            _stack_rows([[own[name].detach() for name in group] for own in weights])
            for group in self.names
        ]
        known = {name for group in self.names for name in group}
        self.buffers = {
            name: torch.stack([own[name].detach() for own in weights])
            for name in weights[0]
            if name not in known
        }
        self.numbers: list[Hyperparameters] = []
        self.read_hyperparameters()
        self.state = [self._gathered(i) for i in range(len(self.names))]
        for member in self.members:
            member.optimizer.state.clear()
        self._view()

    def __len__(self) -> int:
        return len(self.members)

    def read_hyperparameters(self) -> None:
        """Read the members' numbers from their optimizers, as their schedules have left them."""
        groups = [member.groups for member in self.members]
        self.numbers = [
            Hyperparameters([own[i] for own in groups], self.rule.stacks, self.rule.switches, flat)
            for i, flat in enumerate(self.flat)
        ]

    def _view(self) -> None:
        """Show the rows as the model's parameters, and their gradients likewise."""
        self.steps = torch.zeros(len(self), 1, dtype=torch.float64, device=self.flat[0].device)
        self.slopes = [torch.empty_like(flat) for flat in self.flat]
        views = self._shaped(self.flat)
        self.params = {name: view.detach().requires_grad_() for name, view in views.items()}
        self.gradients = self._shaped(self.slopes)

    def _shaped(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """Views of rows [K, P] by the parameters' names and shapes, [K, …] each."""
        views = {}
        for group, flat in zip(self.names, flats, strict=True):
            sizes = [self.shapes[name].numel() for name in group]
            for name, part in zip(group, flat.split(sizes, 1), strict=True):
                views[name] = part.view(len(flat), *self.shapes[name])
        return views

    def join_gradients(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Join the gradients [K, …] of the parameters to those [K, P] of the groups."""
        named = dict(zip(self.params, parts, strict=True))
        if all(part is self.gradients[name] for name, part in named.items()):
            return self.slopes
        return [torch.cat([named[name].flatten(1) for name in group], 1) for group in self.names]

    def _gathered(self, i: int) -> dict[str, Tensor]:
        """The tensors an optimizer keeps for group ``i``, zero where a member has none yet."""
        found = {}
        for kept in self.rule.keeps(self.numbers[i]):
            found[kept] = _stack_kept(self.members, i, kept, self.flat[i])
        return found

    def update(self, gradients: Sequence[Tensor], t: int) -> None:
        """Take step number t along the gradients [K, P] of the groups."""
        groups = zip(self.flat, gradients, self.state, self.numbers, strict=True)
        for i, (w, g, state, numbers) in enumerate(groups):
            if self.compiles:
                tensors = [w, g, self.steps.fill_(t), *state.values(), *numbers.exact.values()]
                code = self._find_update(i).find_code(tensors)
                if code is not None:
                    code(tensors)
                    continue
            self.rule.step(w, g, state, numbers, t)

    def bind_updates(self, t: int, columns: Sequence[Sequence[Columns]]) -> list[BoundCode] | None:
        """Bind the machine code of the updates along ``slopes`` to several steps from number t on.

        Args:
            t: the number of the first of them.
            columns: at each step, the numbers [K, 1] of each group.

        Returns:
            One a group; None where there is none of some group.
        """
        steps, bound = len(columns), []
        count = torch.arange(t, t + steps, dtype=torch.float64)[:, None, None]
        count = count.expand(steps, len(self), 1).contiguous()
        for i, (w, g, state) in enumerate(zip(self.flat, self.slopes, self.state, strict=True)):
            own = [torch.stack([step[i][name] for step in columns]) for name in columns[0][i]]
            tensors = [w, g, count[0], *state.values(), *(column[0] for column in own)]
            code = self._find_update(i).find_code(tensors)
            if code is None:
                return None
            moved = {len(tensors) - len(own) + j: len(self) * 8 for j in range(len(own))}
            bound.append(code.bind(tensors, (), {2: len(self) * 8, **moved}, steps))
        return bound

    def _find_update(self, i: int) -> CompiledFunction:
        """Find the update of group ``i`` as a function, for such numbers as are zero."""
        key = i, *self.numbers[i].nonzero.values()
        if key not in self._updates:
            rule = TensorRule(self.rule, list(self.state[i]), self.numbers[i])
            self._updates[key] = CompiledFunction(rule)
        return self._updates[key]

    def collect_state(self) -> dict[str, Tensor]:
        """All parameters and buffers, [K, …]."""
        return {name: p.detach() for name, p in self.params.items()} | self.buffers

    def view_params(self, k: int) -> dict[str, Tensor]:
        """One member's parameters, as views."""
        return {name: p.detach()[k] for name, p in self.params.items()}

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other members go."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.flat[0].device)
        self.members = [self.members[row] for row in rows]
        self.flat = [flat[index] for flat in self.flat]
        self.buffers = {name: b[index] for name, b in self.buffers.items()}
        self.state = [{k: t[index] for k, t in state.items()} for state in self.state]
        if self.members:
            self.read_hyperparameters()
        self._view()

    @torch.no_grad()
    def write_back(self, k: int) -> None:
        """Give member k's weights, buffers and optimizer state to its own objects."""
        member, whole = self.members[k], self.collect_state()
        for name, own in member.weights().items():
            own.data.copy_(whole[name][k])
        for i, group in enumerate(member.optimizer.param_groups):
            group.update(_settings(member.groups[i]))
            for kept, tensor in self.state[i].items():
                self._give(member, group, kept, tensor[k])
            self._give_count(member, group)

    def _give(self, member: StackedRun, group: Mapping[str, Any], kept: str, row: Tensor) -> None:
        sizes = [p.numel() for p in group["params"]]
        parts = [row[0]] * len(sizes) if kept in SINGLE else row.split(sizes)
        for p, part in zip(group["params"], parts, strict=True):
            shape = () if kept in SINGLE else p.shape
            member.optimizer.state[p][kept] = part.detach().clone().reshape(shape)

    def _give_count(self, member: StackedRun, group: dict[str, Any]) -> None:
        if self.rule.counts == "groups":
            group["step"] = member.state.step
        elif self.rule.counts == "state" and member.state.step:
            for p in group["params"]:
                member.optimizer.state[p]["step"] = torch.tensor(float(member.state.step))


def _stack_rows(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack tensors that lie side by side in the row of each member: [K, P]."""
    # each in its place, as rows of their own would be a copy of all
    size = sum(part.numel() for part in rows[0])
    stacked = rows[0][0].new_empty(len(rows), size)
    for row, parts in zip(stacked, rows, strict=True):
        torch.cat([part.reshape(-1) for part in parts], out=row)
    return stacked


def _stack_kept(members: Sequence[StackedRun], i: int, kept: str, like: Tensor) -> Tensor:
    """Stack what the members' optimizers keep under a name for their group ``i``."""
    if kept in SINGLE:
        stacked = like.new_full((len(members), 1), SINGLE[kept], dtype=torch.float64)
    else:
        stacked = torch.zeros_like(like)
    for row, member in zip(stacked, members, strict=True):
        params = member.optimizer.param_groups[i]["params"]
        found = [member.optimizer.state.get(p, {}).get(kept) for p in params]
        if kept in SINGLE and found[0] is not None:
            row.fill_(float(found[0]))
        elif kept not in SINGLE:
            for part, own in zip(row.split([p.numel() for p in params]), found, strict=True):
                if own is not None:
                    part.copy_(own.reshape(-1))
    return stacked


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k not in ("params", "param_names", "step")}
