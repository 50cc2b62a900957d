"""The backend of K models of one shape, trained as one stacked model.

`truerisk.engine.stacked.reference` does the same by plain ``torch.vmap``: read that first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.batch import Batch
from truerisk.core.deterministic import averaged_names, eval_mode, spread_ties, tied_names
from truerisk.core.errors import Diverged
from truerisk.engine import nonfinite
from truerisk.engine.host import Host
from truerisk.engine.measure import split_names
from truerisk.engine.stacked.measuring import StackedEstimator
from truerisk.engine.stacked.member_code.compiled_function import load_driver, run_steps
from truerisk.engine.stacked.stack import Columns, Stack
from truerisk.engine.stacked.stacked_data import PickedBatch, StackedPlan, StackedSplit
from truerisk.engine.stacked.stacked_objective import StackedObjective
from truerisk.engine.stacked.stacked_run import StackedRun, advance_schedules, share_schedules
from truerisk.engine.stacked.substitution import differing_numbers
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.state import CheckpointParts
from truerisk.engine.step import average_weights, clip_scale, edit_batch, project_weights, take_in
from truerisk.risk.estimate import name_gap
from truerisk.risk.measured import Measured

MicroIndices = list[tuple[Tensor, float]]
AHEAD = 16
"""Steps that a row may take before the next one does; a run is saved and stopped between those."""


class StackedBackend:
    """Train and measure K models that stand at the same step.

    A step is an ordinary run's (`truerisk.engine.step`), with every operation on all rows at once.
    Regularizers' hooks on batches and weights are few, small and written for one run: a run's own
    are called on its own rows, with torch's global generator at its own place in its stream.

    Args:
        runs: of one shape (`StackedRun.shape`).
        host: the device and the precision.

    Attributes:
        runs: those that still train, one a row.
    """

    def __init__(self, runs: Sequence[StackedRun], host: Host) -> None:
        share_schedules(runs)
        self.host, self.stack = host, Stack(runs)
        self.dropout = DropoutStreams([run.recipe.streams.noise for run in runs])
        self.dropout.load_state_dict([run.dropout for run in runs])
        recipes = [run.recipe for run in runs]
        like = self.stack.flat[0]
        self.objective = StackedObjective(
            recipes[0], differing_numbers(recipes), self.dropout, like, runs[0].horizon
        )
        keys = [run.data_key for run in runs]
        self.feeds = {
            name: StackedSplit([getattr(recipe.data, name) for recipe in recipes], keys)
            for name in split_names(recipes[0].data)
        }
        self.orders = StackedPlan([run.plan for run in runs])
        self.columns = list(range(len(runs)))
        self.has_ties = bool(tied_names(self.model))
        self.estimator = StackedEstimator([run.estimator for run in runs], self.feeds)
        self.measured: dict[str, Tensor] = {}

    @property
    def runs(self) -> list[StackedRun]:
        """Those that still train."""
        return self.stack.members

    @property
    def model(self) -> nn.Module:
        """The one model that stands for all."""
        return self.objective.objective.model

    @property
    def spares_memory(self) -> bool:
        """Whether data are too large for a copy, and no step takes memory, as of machine code."""
        large, compiles = self.feeds["train"].reads_source, self.objective.compiles
        return large and compiles and load_driver() is not None

    def begin(self) -> None:
        """Train from here on."""
        for run in self.runs:
            if not run.recipe.model.training:
                run.recipe.model.train()

    # --- training -----------------------------------------------------------------------------

    def rest_of_epoch(self) -> Iterator[list[MicroIndices]]:
        """Yield steps that are left of the epoch, each as indices of its micro-batches.

        They come in short rows, of which as many are to be removed as have been taken; those that
        are left come again.
        """
        state, horizon = self.runs[0].state, self.runs[0].horizon
        self.orders.keep(self.columns)
        self.columns = list(range(len(self.runs)))
        left = min(self.orders.steps_per_epoch - state.step_in_epoch, horizon - state.step)
        steps = islice(self.orders.epoch(state.epoch, state.step_in_epoch), left)
        # the last of an epoch may be a smaller one
        for _, alike in groupby(steps, _list_shapes):
            while row := list(islice(alike, AHEAD)):
                while row:
                    yield row

    def own_columns(self, index: Tensor) -> Tensor:
        """Select the samples [K, n] of those that still train, of all that began the epoch."""
        if index.shape[1] == len(self.columns):
            return index.T
        return index[:, self.columns].T

    def take_step(self, batch: list[MicroIndices]) -> Mapping[int, Diverged]:
        """Take the first of some steps, or several; tell why of the rows that diverge."""
        if len(batch) > 1 and self.may_run_ahead(batch[0]):
            ended = self.run_ahead(batch)
            if ended is not None:
                return ended
        return self.take_one_step(batch.pop(0))

    def may_run_ahead(self, step: MicroIndices) -> bool:
        """Tell whether a row may take several steps before the next row takes any."""
        recipe = self.runs[0].recipe
        hooked = any(map(recipe.hooks, ("edit_batch", "project", "average")))
        clips = recipe.step.clip.norm is not None or recipe.step.clip.value is not None
        whole = len(step) == 1 and step[0][1] == 1
        free = self.objective.compiles and whole and not hooked and not clips
        return free and load_driver() is not None

    def run_ahead(self, steps: list[MicroIndices]) -> dict[int, Diverged] | None:
        """Take several steps of one row after another, whose weights stay near the core.

        Args:
            steps: of which those that are taken are removed.

        Returns:
            Why rows have diverged; None, with nothing done, where not all is machine code.
        """
        given = (self.feeds["train"].pick_batch(self.own_columns(i)) for ((i, _),) in steps)
        batches = [batch for batch in given if isinstance(batch, PickedBatch)]
        if len(batches) < len(steps):
            return None
        stack, first = self.stack, self.runs[0].state.step + 1
        bind = partial(self.objective.bind_gradient, stack.params, stack.buffers)
        if bind(batches[:1], stack.gradients) is None:
            return None
        if stack.bind_updates(first, [[numbers.exact for numbers in stack.numbers]]) is None:
            return None
        columns = self.advance_numbers(len(steps))
        batches = batches[: len(columns)]
        gradient, updates = bind(batches, stack.gradients), stack.bind_updates(first, columns)
        assert gradient is not None and updates is not None
        objective, risk, *_, norm = gradient.results
        taken = run_steps([gradient, *updates], [objective, norm])
        del steps[: len(batches)]
        return self.count_steps(taken, objective, risk, norm, batches)

    def advance_numbers(self, steps: int) -> list[list[Columns]]:
        """Move the schedules on, and return the optimizers' numbers of each step.

        Args:
            steps: how many at most: fewer where a number becomes zero, or is it no longer.
        """
        columns = list[list[Columns]]()
        nonzero = [numbers.nonzero for numbers in self.stack.numbers]
        while len(columns) < steps and nonzero == [own.nonzero for own in self.stack.numbers]:
            columns.append([numbers.exact for numbers in self.stack.numbers])
            if advance_schedules(self.runs):
                self.stack.read_hyperparameters()
        return columns

    def count_steps(
        self,
        taken: Sequence[int],
        objective: Tensor,
        risk: Tensor,
        norm: Tensor,
        batches: Sequence[PickedBatch],
    ) -> dict[int, Diverged]:
        """Count what steps have shown, and name what is not finite in the rows that diverge.

        Args:
            taken: how many steps each row has taken.
            objective: J [steps, K].
            risk: likewise.
            norm: ‖∇J‖, likewise.
            batches: of the steps.
        """
        samples, diverged = batches[0].x.shape[1], {}
        shown = [tensor.T.tolist() for tensor in (risk, objective, norm)]
        for k, (run, count, *rows) in enumerate(zip(self.runs, taken, *shown, strict=True)):
            for own_risk, value, own_norm in islice(zip(*rows, strict=True), count + 1):
                run.state.sums.add_loss(own_risk, samples)
                take_in(run.state, value, own_norm)
            run.state.step += count
            run.state.step_in_epoch += count
            if count < len(batches):
                diverged[k] = self.find_culprit(k, self.stack.slopes, batches[count])
        return diverged

    def take_one_step(self, batch: MicroIndices) -> Mapping[int, Diverged]:
        """Take a step of every row; tell why of those that diverge."""
        batches = [(self.pick_batch(self.own_columns(index)), share) for index, share in batch]
        gradients, objective, risks, norm_K = self.gradient(batches)
        diverged = self.check(objective, norm_K, risks, gradients, batches[-1][0])
        if len(diverged) == len(self.runs):
            return diverged
        # Rows know nothing of each other, so those that have diverged are let go after the step.
        self.clip(gradients, norm_K)
        going = [run for k, run in enumerate(self.runs) if k not in diverged]
        step = going[0].state.step + 1
        with torch.no_grad():
            self.stack.update(gradients, step)
        for run in going:
            run.state.step = step
            run.state.step_in_epoch += 1
        if advance_schedules(self.runs):
            self.stack.read_hyperparameters()
        self.project_and_average(step)
        return diverged

    def pick_batch(self, index: Tensor) -> Batch | PickedBatch:
        """Pick samples [K, n] of the training set, and let each run's regularizers edit them."""
        if not self.runs[0].recipe.hooks("edit_batch"):
            return self.feeds["train"].pick_batch(index)
        batch, rows = self.feeds["train"].gather_batch(index), []
        for k, run in enumerate(self.runs):
            edits = list(run.recipe.hooks("edit_batch").values())
            with run.drawing_noise():
                rows.append(edit_batch(edits, Batch(batch.x[k], batch.y[k])))
        parts: dict[str, Any] = {}
        for name in Batch.__slots__:
            tensors = [getattr(row, name) for row in rows]
            parts[name] = None if tensors[0] is None else torch.stack(tensors)
        return Batch(**parts)

    def gradient(
        self, batches: Sequence[tuple[Batch | PickedBatch, float]]
    ) -> tuple[list[Tensor], Tensor, list[tuple[list[float], int]], Tensor]:
        """Differentiate J of every row.

        Args:
            batches: x [K, n, …] with the share each has in the step.

        Returns:
            ∇J [K, P] as the optimizer's groups have the parameters, J [K], of each micro-batch the
            risks [K] and the number of samples, and ‖∇J‖ [K].
        """
        total: list[Tensor] = []
        values, risks = [], []
        into = self.stack.gradients if len(batches) == 1 else None
        for batch, share in batches:
            with self.host.place.autocast():
                found = self.objective.gradient(
                    self.stack.params, self.stack.buffers, batch, share, into
                )
            flat = self.stack.join_gradients(found.parts)
            total = [a + b for a, b in zip(total, flat, strict=True)] if total else flat
            values.append(found.objective)
            risks.append((found.risk.tolist(), batch.x.shape[1]))
        known = found.norm if len(batches) == 1 else None
        norm = compute_norm(total) if known is None else known
        return total, reduce(torch.add, values), risks, norm

    def check(
        self,
        objective: Tensor,
        norm: Tensor,
        risks: Sequence[tuple[list[float], int]],
        gradients: Sequence[Tensor],
        batch: Batch | PickedBatch,
    ) -> dict[int, Diverged]:
        """Count what the step has shown, and name what is not finite in the rows that diverge.

        Args:
            objective: J [K].
            norm: ‖∇J‖ [K].
            risks: of each micro-batch the risks [K] and the number of samples.
            gradients: ∇J [K, P] of each group.
            batch: the last micro-batch.
        """
        values, norms = objective.tolist(), norm.tolist()
        diverged = {}
        for k, run in enumerate(self.runs):
            for row, samples in risks:
                run.state.sums.add_loss(row[k], samples)
            if not take_in(run.state, values[k], norms[k]):
                diverged[k] = self.find_culprit(k, gradients, batch)
        return diverged

    def find_culprit(
        self, k: int, gradients: Sequence[Tensor], batch: Batch | PickedBatch
    ) -> Diverged:
        """Name what went bad in a row, found as an ordinary run finds it."""
        self.stack.write_back(k)
        run = self.runs[k]
        for group, flat in zip(run.optimizer.param_groups, gradients, strict=True):
            parts = flat[k].split([p.numel() for p in group["params"]])
            for p, part in zip(group["params"], parts, strict=True):
                p.grad = part.view_as(p)
        culprit = nonfinite.culprit(run.recipe.model, batch.x[k])
        return Diverged(run.state.step + 1, culprit)

    def clip(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        """Scale each row's ∇J down to its largest norm, or cut its entries, in place."""
        clips = [run.recipe.step.clip for run in self.runs]
        if clips[0].norm is not None:
            scale_K = clip_scale(norm, norm.new_tensor([clip.norm for clip in clips]))
            for g_KP in gradients:
                g_KP.mul_(scale_K[:, None])
        if clips[0].value is not None:
            for g_KP in gradients:
                bound = g_KP.new_tensor([clip.value for clip in clips])[:, None]
                torch.minimum(torch.maximum(g_KP, -bound, out=g_KP), bound, out=g_KP)

    def project_and_average(self, step: int) -> None:
        """Project the rows' weights, and let averages take them in."""
        hooks = self.runs[0].recipe.hooks
        if hooks("project"):
            for k, run in enumerate(self.runs):
                project_weights(
                    list(run.recipe.hooks("project").values()), self.stack.view_params(k)
                )
        if hooks("average"):
            whole, names = self.stack.collect_state(), averaged_names(self.model)
            for k, run in enumerate(self.runs):
                state = {name: whole[name][k] for name in names}
                average_weights(list(run.recipe.hooks("average").values()), state, step)

    # --- measuring ----------------------------------------------------------------------------

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the weights that count still, in eval mode; training then goes on as it was."""
        with self.host.place.autocast():
            self.measured = self.standing_weights()
            with eval_mode(self.model):
                yield
        self.measured = {}
        # A schedule may have followed the risk that was measured inside the block.
        if self.runs:
            self.stack.read_hyperparameters()

    def standing_weights(self) -> dict[str, Tensor]:
        """Gather the weights and buffers that are measured and kept: averages where there are."""
        whole = self.stack.collect_state()
        if not self.runs[0].recipe.hooks("averaged"):
            return whole
        rows = []
        for k, run in enumerate(self.runs):
            row = {name: tensor[k] for name, tensor in whole.items()}
            for regularizer in run.recipe.regularizers.values():
                average = regularizer.averaged()
                if average is not None:
                    own, refresh = row | dict(average), regularizer.refresh_statistics
                    row = run.estimator.settle_state(own, refresh)
                    break
            rows.append(row)
        return {name: torch.stack([row[name] for row in rows]) for name in whole}

    def epoch_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure some rows after an epoch."""
        pairs = self.estimator.epoch_risks(self.objective, self.measured)
        return [
            self.runs[k].estimator.join_risks(*pairs[k], self.runs[k].state.epoch) for k in rows
        ]

    def copy_weights(self, row: int) -> dict[str, Tensor]:
        """Copy the weights and buffers that were measured."""
        own = {name: self.measured[name][row].clone() for name in self.stack.shapes}
        return spread_ties(self.model, own) if self.has_ties else own

    def final_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure the best weights of some rows on what the end of a run takes."""
        if not rows:
            return []
        bests = [self.runs[k].state.best for k in rows]
        states = [best.state for best in bests if best is not None]
        state = {name: torch.stack([own[name] for own in states]) for name in self.stack.shapes}
        estimator, objective = self.estimator.rows(rows), self.objective.select_rows(rows)
        summaries: list[dict[str, Measured]] = [{} for _ in rows]
        with self.host.place.autocast(), eval_mode(self.model):
            for name in self.feeds:
                index = estimator.final_index(name)
                measurements = estimator.measure_split(name, objective, state, index, thorough=True)
                for k, summary, split in zip(rows, summaries, measurements, strict=True):
                    run = self.runs[k]
                    assert run.state.best is not None
                    summary |= run.estimator.name_final(name, split, run.state.best.epoch)
            for k, summary, own in zip(rows, summaries, states, strict=True):
                summary |= self.true_risk(k, own) | name_gap(summary)
                own_estimator = self.runs[k].estimator
                summary |= own_estimator.constant_risks() | own_estimator.shares_explained(summary)
        return summaries

    def true_risk(self, k: int, state: Mapping[str, Tensor]) -> dict[str, Measured]:
        """Measure a row's risk under P, where P is known, as an ordinary run measures it."""
        run = self.runs[k]
        if run.recipe.data.population is None:
            return {}
        assert run.state.best is not None
        run.recipe.model.load_state_dict(state)
        with eval_mode(run.recipe.model):
            return run.estimator.true_risk(run.state.best.epoch)

    def explain_divergence(self, row: int) -> Diverged:
        """Say what is no longer finite where the validation risk is not."""
        self.stack.write_back(row)
        run = self.runs[row]
        title = run.recipe.surrogate.val_title
        bad = nonfinite.first_bad_weight(run.recipe.model) or title
        return Diverged(run.state.step, bad)

    # --- checkpoints --------------------------------------------------------------------------

    def checkpoint_parts(self, rows: Sequence[int]) -> Iterator[CheckpointParts]:
        """Give runs their weights and their optimizer's state back, and yield those."""
        dropout = self.dropout.state_dict()
        for k in rows:
            self.stack.write_back(k)
            self.runs[k].dropout = dropout[k]
            yield self.runs[k].parts()
            # the stack has it: a copy of each member's would be as large
            self.runs[k].optimizer.state.clear()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""
        if len(rows) == len(self.runs):
            return
        self.stack.keep(rows)
        self.dropout.keep(rows)
        self.objective = self.objective.select_rows(rows)
        self.feeds = {name: feed.select_rows(rows) for name, feed in self.feeds.items()}
        self.columns = [self.columns[row] for row in rows]
        self.estimator = self.estimator.rows(rows)


def _list_shapes(step: MicroIndices) -> list[torch.Size]:
    return [index.shape for index, _ in step]


def compute_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Compute ‖∇J‖ [K] of gradients [K, P] by group."""
    norms = [torch.linalg.vector_norm(g_KP, dim=1) for g_KP in gradients]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
