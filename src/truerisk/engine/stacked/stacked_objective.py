"""J of every member at once: the pure objective under ``vmap``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.engine.stacked.member_code.compiled_function import (
    BoundCode,
    CompiledFunction,
    PickedRows,
    is_worth_compiling,
)
from truerisk.engine.stacked.reference import StackedGradient
from truerisk.engine.stacked.stacked_data import PickedBatch, batch_parts
from truerisk.engine.stacked.substitution import find_numbers, stack_numbers, substituted
from truerisk.engine.stacked.vmap.batching_rules import BatchingRules
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.spare_rows import SpareRows
from truerisk.engine.stacked.vmap.traced_function import Function, TracedFunction
from truerisk.objective import Objective
from truerisk.recipe import Recipe

State = Mapping[str, Tensor]
Names = tuple[tuple[str, ...], ...]


class StackedObjective:
    """The objective of one recipe, at K sets of parameters and K batches.

    `truerisk.engine.stacked.reference.ReferenceObjective` computes the same by plain ``vmap``.

    Args:
        recipe: that of member 0, whose objects stand for all.
        differing: the numbers that are not the same for all members, with their K values.
        dropout: streams of dropout masks, one a member.
        like: a tensor of the weights' dtype and device.
        steps: for how many it will be differentiated.
    """

    def __init__(
        self,
        recipe: Recipe,
        differing: Mapping[str, Sequence[float]],
        dropout: DropoutStreams,
        like: Tensor,
        steps: int = 0,
    ) -> None:
        self.compiles = is_worth_compiling(steps)
        self.objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        self.with_outputs = bool(recipe.metrics)
        self.with_places = any(groups.ndim > 1 for groups in recipe.data.groups.values())
        self.slots = find_numbers(recipe)
        self.values = stack_numbers(differing, like)
        self.dropout, self.rules = dropout, BatchingRules(dropout)
        # by what is asked and the names of the tensors, as a trace knows those by their order only
        self._gradients: dict[Any, SpareRows] = {}
        self._measures: dict[Any, SpareRows] = {}

    def select_rows(self, rows: Sequence[int]) -> StackedObjective:
        """Return the same for some of the members."""
        some = copy.copy(self)
        some.values = {key: values[list(rows)] for key, values in self.values.items()}
        return some

    def gradient(
        self,
        params: State,
        buffers: State,
        batch: Batch | PickedBatch,
        share: float = 1.0,
        into: State | None = None,
    ) -> StackedGradient:
        """Differentiate J of every member.

        Args:
            params: [K, …] by name, each of which requires a gradient.
            buffers: [K, …] by name; running statistics among them move on, in place.
            batch: x [K, n, …] and y [K, n, …].
            share: that of the batch in the step, a factor of J.
            into: by parameter, what its gradient may be written to.

        Returns:
            J, the risk g, and ∇J by parameter, perhaps in the places of ``into``.
        """
        named: list[Mapping[str, Tensor | PickedRows]]
        named = [params, buffers, self.values, _read_parts(batch)]
        names = tuple(tuple(group) for group in named)
        key = share, names
        if key not in self._gradients:
            moved = slice(len(params), len(params) + len(buffers))
            gradient = self._make_gradient(names, share)
            self._gradients[key] = SpareRows(
                TracedFunction(gradient),
                moved,
                self.dropout.undone,
                self._compile(lambda *tensors: add_norm(gradient(*tensors))),
            )
        tensors = [tensor for group in named for tensor in group.values()]
        function = self._gradients[key]
        kind = batch.x.shape[1:]
        if not self.dropout.knows(kind):
            # of all members it would take as much memory as a step by torch
            function.rehearse(tensors)
        tensors += self.dropout.draw_ahead(kind)
        places = [] if into is None else [None, None, *(into[name] for name in params)]
        J_K, risk_K, *rest = function(tensors, places)
        return StackedGradient(J_K, risk_K, rest[: len(params)], *rest[len(params) :])

    def bind_gradient(
        self, params: State, buffers: State, batches: Sequence[PickedBatch], into: State
    ) -> BoundCode | None:
        """Bind the machine code of the gradient to several batches, one after another.

        Args:
            params: [K, …] by name.
            buffers: [K, …] by name; they move on with each batch.
            batches: all of one shape, each the whole of a step.
            into: by parameter, what each gradient is written to.

        Returns:
            J [steps, K], the risk, ∇J by parameter and its norm are the results; None where there
            is no such code yet, it draws at random, or a gradient comes to lie elsewhere.
        """
        columns = [list(column) for column in zip(*batches, strict=True)]
        indices = [torch.stack([part.index for part in column]) for column in columns]
        firsts = [column[0] for column in columns]
        pairs = zip(firsts, indices, strict=True)
        parts = PickedBatch(*(replace(part, index=index[0]) for part, index in pairs))
        named: list[Mapping[str, Tensor | PickedRows]]
        named = [params, buffers, self.values, parts._asdict()]
        function = self._gradients.get((1.0, tuple(tuple(group) for group in named)))
        tensors = [tensor for group in named for tensor in group.values()]
        if function is None or function.compiled is None or self.dropout.draws:
            return None
        code = function.compiled.find_code(tensors)
        if code is None:
            return None
        # x and y come last
        steps = [index.stride(0) * index.itemsize for index in indices]
        moved = dict(zip(range(len(tensors))[-len(steps) :], steps, strict=True))
        places = [None, None, *(into[name] for name in params)]
        bound = code.bind(tensors, places, moved, len(batches))
        # two biases of a recurrent layer have one gradient, which is to be copied after each step
        given = zip(bound.results[2:-1], places[2:], strict=True)
        if not all(found is place for found, place in given):
            return None
        looked_at = (bound.results[0], bound.results[-1])
        return bound if all(tensor.stride(1) == 1 for tensor in looked_at) else None

    def _make_gradient(self, names: Names, share: float) -> Function:
        def one(state: State, values: State, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with substituted(self.slots, values):
                value = self.objective(state, Batch(**parts))
            return value.objective, value.risk

        def gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            params, buffers, values, own = _name_tensors(names, rest)
            with self.dropout.replayed(list(rest), own["x"].shape[1:]):
                value, risk = self._map(one, params | buffers, values, own)
            if share != 1:
                value = value * share
            found = torch.autograd.grad(value.sum(), list(params.values()))
            return value.detach(), risk.detach(), *found

        return gradient

    def _compile(self, function: Function) -> CompiledFunction | None:
        return CompiledFunction(function) if self.compiles else None

    def measure(
        self, state: State, batch: Batch | PickedBatch, rows: slice, often: bool = False
    ) -> dict[str, Tensor]:
        """Evaluate some members in eval mode, without gradients.

        Args:
            state: their parameters and buffers, [K, …] by name.
            batch: x [K, n, …] and y [K, n, …].
            rows: which members they are.
            often: whether batches of this kind come again and again.

        Returns:
            ``losses`` [K, n], and ``reported`` [K, n] where those are others; ``errors`` [K, n]
            where the task has them; ``penalty/NAME`` [K]; ``outputs`` [K, n, …] where
            metrics are computed of them; ``place_losses`` and ``place_errors`` [K, n, T] where
            the places of a sample belong to several groups.
        """
        values = {key: value[rows] for key, value in self.values.items()}
        named: list[Mapping[str, Tensor | PickedRows]] = [state, values, _read_parts(batch)]
        names = tuple(tuple(group) for group in named)
        key = names, often
        if key not in self._measures:
            measure = self._make_measure(names)
            compiled = self._compile(measure) if often else None
            self._measures[key] = SpareRows(TracedFunction(measure), compiled=compiled)
        tensors = [tensor for group in named for tensor in group.values()]
        found = self._measures[key](tensors)
        return dict(zip(self._measure_names, found, strict=True))

    @property
    def measures_in_code(self) -> bool:
        """Whether what is measured often is measured for one member after another."""
        codes = (function.compiled for function in self._measures.values())
        return any(code is not None and code.has_code for code in codes)

    @property
    def _measure_names(self) -> list[str]:
        has_errors = self.objective.surrogate.task.error_title is not None
        errors = ["errors"] if has_errors else []
        reported = ["reported"] if self._reports_others else []
        penalties = (f"penalty/{name}" for name in self.objective.penalties)
        outputs = ["outputs"] if self.with_outputs else []
        places = ["place_losses", "place_errors"] if self.with_places else []
        return ["losses", *reported, *errors, *penalties, *outputs, *places]

    @property
    def _reports_others(self) -> bool:
        # by the numbers of all members, of which some may be nothing but a risk's
        with substituted(self.slots, self.values):
            return self.objective.surrogate.reports_others

    def _make_measure(self, names: Names) -> Function:
        surrogate, reports_others = self.objective.surrogate, self._reports_others

        def one(state: State, values: State, own: dict[str, Tensor]) -> tuple[Tensor, ...]:
            with substituted(self.slots, values):
                value = self.objective(state, Batch(**own))
                errors = surrogate.compute_errors(value.outputs, own["y"])
                reported = surrogate.report_losses(value.losses, value.outputs, own["y"])
                places = (
                    surrogate.compute_places(value.outputs, own["y"]) if self.with_places else ()
                )
            others = (reported,) if reports_others else ()
            wrong = () if errors is None else (errors,)
            outputs = (value.outputs,) if self.with_outputs else ()
            return value.losses, *others, *wrong, *value.penalties.values(), *outputs, *places

        def measured(*tensors: Tensor) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = self._map(one, *_name_tensors(names, iter(tensors)))
            return found

        return measured

    def _map(self, function: Any, *args: Any) -> Any:
        with self.rules:
            return torch.vmap(function, randomness="different")(*args)


def _read_parts(batch: Batch | PickedBatch) -> Mapping[str, Tensor | PickedRows]:
    return batch._asdict() if isinstance(batch, PickedBatch) else batch_parts(batch)


def add_norm(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Add ‖∇J‖ [K] to J, the risk and ∇J by parameter, while those are at hand."""
    _, _, *parts = results
    norms = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]
    return *results, torch.linalg.vector_norm(torch.stack(norms, 1), dim=1)


def _name_tensors(names: Names, tensors: Iterator[Tensor]) -> list[dict[str, Tensor]]:
    """Give tensors their names back, in the order of the names."""
    return [{name: next(tensors) for name in group} for group in names]
