"""What a stack of K models computes, by plain ``torch.vmap``: read this first.

It is the oracle of the tests, too. `StackedObjective` gives the same numbers several times as fast
by the means in `truerisk.engine.stacked.vmap`; whoever doubts one can put this in its place.

Plain ``vmap`` cannot do everything, and where it cannot, this takes one member after another:

* recurrent layers in evaluation: torch's own have no batching rule, and are taken apart into what
  has one only where a gradient is taken: ``vmap(grad(f))`` works and ``vmap(f)`` does not;
* numbers that differ between the members and that torch's own classes take as plain ones: label
  smoothing and the probability of dropout;
* batch normalization under mixed precision: its rule has none for inputs in half precision beside
  statistics in single precision.

Dropout draws from torch's global generator here, rather than from a stream a member: its masks are
others, with the same distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from truerisk.core.batch import Batch
from truerisk.engine.stacked.stacked_data import PickedBatch, batch_parts
from truerisk.engine.stacked.substitution import find_numbers, stack_numbers, substituted
from truerisk.objective import Objective, ObjectiveValue
from truerisk.recipe import Recipe

Named = Mapping[str, Tensor]


class StackedGradient(NamedTuple):
    """What a step shows of every member.

    Attributes:
        objective: J [K].
        risk: g [K].
        parts: ∇J by parameter, [K, …] each.
        norm: ‖∇J‖ [K], where it was computed along the way.
    """

    objective: Tensor
    risk: Tensor
    parts: Sequence[Tensor]
    norm: Tensor | None = None


class ReferenceObjective:
    """The objective of one recipe, at K sets of parameters and K batches.

    Args:
        recipe: that of member 0, whose objects stand for all.
        differing: the numbers that are not the same for all members, with their K values.
        _dropout: not used; it is here so that this can stand where `StackedObjective` does.
        like: a tensor of the weights' dtype and device.
        _steps: not used.
    """

    compiles = measures_in_code = False

    def __init__(
        self,
        recipe: Recipe,
        differing: Mapping[str, Sequence[float]],
        _dropout: Any,
        like: Tensor,
        _steps: int = 0,
    ) -> None:
        self.objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        self.slots = find_numbers(recipe)
        self.values = stack_numbers(differing, like)

    def select_rows(self, rows: Sequence[int]) -> ReferenceObjective:
        """Return the same for some of the members."""
        some = copy.copy(self)
        some.values = {key: values[list(rows)] for key, values in self.values.items()}
        return some

    def gradient(
        self,
        params: Named,
        buffers: Named,
        batch: Batch | PickedBatch,
        share: float = 1.0,
        into: Named | None = None,
    ) -> StackedGradient:
        """Differentiate J of every member.

        Args:
            params: [K, …] by name.
            buffers: [K, …] by name; running statistics among them move on, in place.
            batch: x [K, n, …] and y [K, n, …].
            share: that of the batch in the step, a factor of J.
            into: not used.

        Returns:
            J, the risk g, and ∇J by parameter.
        """

        def objective(
            params: Named, buffers: Named, values: Named, parts: dict[str, Tensor]
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            value = self._evaluate({**params, **buffers}, values, parts)
            return share * value.objective, (share * value.objective, value.risk)

        # buffers are arguments: what a function captures, `grad` lets nobody change in place
        gradient = torch.func.grad(objective, has_aux=True)
        weights = {name: p.detach() for name, p in params.items()}
        parts = batch_parts(_gather(batch))
        members = weights, dict(buffers), self.values, parts
        gradients, (J_K, risk_K) = _map(gradient, self._needs_turns(), *members)
        return StackedGradient(J_K, risk_K, list(gradients.values()))

    @torch.no_grad()
    def measure(
        self, state: Named, batch: Batch | PickedBatch, rows: slice, often: bool = False
    ) -> dict[str, Tensor]:
        """Evaluate some members in eval mode.

        Args:
            state: their parameters and buffers, [K, …] by name.
            batch: x [K, n, …] and y [K, n, …].
            rows: which members they are.

        Returns:
            ``losses`` [K, n], and ``reported`` [K, n] where those are others; ``errors`` [K, n]
            where the task has them; ``penalty/NAME`` [K].
        """
        surrogate = self.objective.surrogate
        # by the numbers of all members, of which some may be nothing but a risk's
        with substituted(self.slots, self.values):
            reports_others = surrogate.reports_others

        def measure(state: Named, values: Named, parts: dict[str, Tensor]) -> dict[str, Tensor]:
            value = self._evaluate(state, values, parts)
            errors = surrogate.compute_errors(value.outputs, parts["y"])
            named = {"losses": value.losses} | ({} if errors is None else {"errors": errors})
            if reports_others:
                with substituted(self.slots, values):
                    others = surrogate.report_losses(value.losses, value.outputs, parts["y"])
                named["reported"] = others
            return named | {f"penalty/{key}": term for key, term in value.penalties.items()}

        values = {key: values_K[rows] for key, values_K in self.values.items()}
        needs_turns = self._needs_turns() or self._has_layer(nn.RNNBase)
        mapped: dict[str, Tensor]
        parts = batch_parts(_gather(batch))
        mapped = _map(measure, needs_turns, dict(state), values, parts)
        return mapped

    def _evaluate(self, state: Named, values: Named, parts: dict[str, Tensor]) -> ObjectiveValue:
        """Evaluate J of one member, with its own numbers in their places."""
        with substituted(self.slots, values):
            return self.objective(state, Batch(**parts))

    def _needs_turns(self) -> bool:
        """Tell whether there is something that plain ``vmap`` can do in no pass."""
        is_mixed = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        owners = [type(self.slots[key].owner) for key in self.values]
        return (is_mixed and self._has_layer(_BatchNorm)) or not all(
            hasattr(owner, "stacks") for owner in owners
        )

    def _has_layer(self, kind: type[nn.Module]) -> bool:
        return any(isinstance(module, kind) for module in self.objective.model.modules())


def _gather(batch: Batch | PickedBatch) -> Batch:
    return batch.gather() if isinstance(batch, PickedBatch) else batch


def _map(function: Callable[..., Any], in_turn: bool, *members: Mapping[str, Tensor]) -> Any:
    """Call a function for every member, and stack what it returns.

    Args:
        function: of rows of ``members``.
        in_turn: whether by a call a member, with plain numbers, rather than by ``vmap``.
        members: [K, …] by name; the last but one are numbers [K], the last one the batch.
    """
    if not in_turn:
        return torch.vmap(function, randomness="different")(*members)
    *state, values, parts = members
    results = []
    for k in range(len(parts["x"])):
        own_state, own_parts = tree_map(itemgetter(k), (state, parts))
        numbers = {key: float(values_K[k]) for key, values_K in values.items()}
        results.append(function(*own_state, numbers, own_parts))
    return tree_map(lambda *rows: torch.stack(rows), *results)
