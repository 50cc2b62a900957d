"""J at a point w, over all batches: a deterministic function of one flat vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from truerisk.core.batch import Batch
from truerisk.core.deterministic import deterministic_forward
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.rng import seed_torch
from truerisk.objective.objective import Objective, ObjectiveValue


class ParameterSpace:
    """ℝᵖ: the parameters in a fixed order, each row by row, one after another.

    Leading dimensions are kept: a stack of vectors [..., p] is a mapping to tensors
    [..., *shape]. The vector has the widest dtype among the parameters; ``named`` gives each
    parameter its own back.

    >>> space = ParameterSpace({"a": torch.zeros(2, 2), "b": torch.zeros(1)})
    >>> space.size, space.named(torch.arange(5.0))["a"].tolist()
    (5, [[0.0, 1.0], [2.0, 3.0]])
    >>> space.flat(space.named(torch.arange(5.0))).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        self.shapes = {name: p.shape for name, p in like.items()}
        self.dtypes = {name: p.dtype for name, p in like.items()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def flat(self, named: Mapping[str, Tensor]) -> Tensor:
        """Concatenate tensors [..., *shape] to one vector [..., p]."""
        parts = []
        for name, shape in self.shapes.items():
            tensor = named[name]
            leading = tensor.shape[: tensor.ndim - len(shape)]
            parts.append(tensor.reshape((*leading, math.prod(shape))))
        return torch.cat(parts, -1)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Cut a vector [..., p] into tensors [..., *shape]; views where the dtype is its own."""
        parts = zip(self.shapes.items(), vector.split(self.sizes, -1), strict=True)
        return {
            name: part.reshape((*vector.shape[:-1], *shape)).to(self.dtypes[name])
            for (name, shape), part in parts
        }


T = TypeVar("T")
Batches = Iterable[Batch] | Callable[[], Iterable[Batch]]

PROBED = 4
"""Samples on which a model is asked whether it is the same function twice."""


class LocalObjective:
    """A point w, and J around it: a deterministic function of a flat vector [p].

    ``J(w) = 1/N Σᵢ l(f(xᵢ; w), yᵢ) + Σₖ λₖ Rₖ(w)``, over the N samples of all batches. Batches of n
    samples have weight n/N, so uneven ones give the mean over all samples, and the penalties count
    once. Batches are read one after another, in the memory of one.

    The model is taken in the mode it is in. In training mode, batch norm normalises by the batch,
    and each batch has its own dropout mask, the same at every evaluation; J then depends on how
    the samples are cut into batches. Neither the model nor any random generator is changed.

    Args:
        objective: J as a pure function.
        params: w, by name, and buffers if they are not to be the model's; parameters left out are
            held at the model's values. None: all the model's trainable ones.
        batches: the samples: a sequence or another iterable that can be read again and again, or a
            function that returns one.
        seed: of the masks.

    Raises:
        ConfigError: a name is not the model's, none is trainable, or batches can be read only once.

    >>> from torch import nn
    >>> model = nn.Linear(1, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> cut = [Batch(torch.ones(n, 1), torch.full((n, 1), y)) for n, y in ((3, 0.0), (1, 1.0))]
    >>> J = LocalObjective(objective, {"weight": torch.tensor([[2.0]])}, cut)
    >>> J.value().item()   # (3·2² + 1)/4
    3.25
    """

    def __init__(
        self,
        objective: Objective,
        params: Mapping[str, Tensor] | None,
        batches: Batches,
        seed: int = 0,
    ) -> None:
        # detached below: derivatives are taken by w, not by the tensors that were given
        given = dict(objective.own if params is None else params)
        _check_arguments(objective, given, batches)
        free = {n: given[n].detach() for n in objective.own if n in given}
        self.objective, self.batches, self.seed = objective, batches, seed
        self.space = ParameterSpace(free)
        self.w = self.space.flat(free)
        held = {n: p.detach() for n, p in objective.own.items() if n not in free}
        self._checked: list[bool] = []  # one for all points that this one is moved to
        self._held = held | {n: t.detach() for n, t in given.items() if n not in free}

    @property
    def single(self) -> bool:
        """Whether all samples are in one batch, which lies in memory."""
        return isinstance(self.batches, Sequence) and len(self.batches) == 1

    def move_to(self, w: Tensor) -> LocalObjective:
        """Return J around the weights ``w`` [p], on the same samples."""
        moved = copy.copy(self)
        # through the parameters' own dtypes, as they may be narrower than the vector's
        moved.w = self.space.flat(self.space.named(w.detach()))
        return moved

    # --- on one batch: pure functions of w ------------------------------------------------------

    def state(self, w: Tensor) -> dict[str, Tensor]:
        """Return parameters and buffers; buffers are copies, as a layer may write into them."""
        buffers = dict(self.objective.model.named_buffers())
        copies = {n: self._held.get(n, b).clone() for n, b in buffers.items() if b is not None}
        return self._held | copies | self.space.named(w)

    def evaluate(self, w: Tensor, batch: Batch) -> ObjectiveValue:
        """Evaluate J and its terms on a batch, as a pure function of w [p].

        Args:
            w: the weights [p].
            batch: n samples.
        """
        return self.objective(self.state(w), batch)

    def outputs(self, w: Tensor, batch: Batch) -> Tensor:
        """Return f(x; w), [n, outputs].

        Args:
            w: the weights [p].
            batch: n samples.
        """
        return self.objective.outputs(self.state(w), batch.x)

    def losses(self, w: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each sample, [n], without penalties.

        Args:
            w: the weights [p].
            batch: n samples.
        """
        return self.objective.losses(self.outputs(w, batch), batch)

    # --- on all batches -------------------------------------------------------------------------

    def map_batches(self, f: Callable[[Batch], T]) -> Iterator[tuple[Batch, T]]:
        """Yield each batch and f of it, computed with the same noise every time."""
        batches = self.batches
        if callable(batches):
            batches = batches()
        for number, batch in enumerate(batches):
            with deterministic_forward(self.objective.model, self.w.device):
                if not self._checked:
                    self._check_deterministic(batch)
                # another mask for each batch, and the same one at every evaluation
                seed_torch(self.seed + number)
                found = f(batch)
            yield batch, found

    def average_batches(self, f: Callable[[Batch], Tensor]) -> Tensor:
        """Return 1/N Σ n·f(batch), where f is a mean over the n samples of a batch."""
        total, samples = None, 0
        for batch, part in self.map_batches(f):
            part, samples = part.detach() * len(batch), samples + len(batch)
            # in place: a vector of the size of the weights for each batch would add up
            total = part if total is None else total.add_(part)
        if total is None or not samples:
            raise ConfigError("there are no samples to differentiate on: `batches` is empty")
        return total / samples

    @torch.no_grad()
    def _check_deterministic(self, batch: Batch) -> None:
        """Refuse a model that two forward passes on a few samples show to move.

        What `deterministic_forward` knows is held still; a user's layer may keep a statistic or
        draw numbers in a way of its own, and derivatives would be wrong without an error.
        """
        few = Batch(batch.x[:PROBED], batch.y[:PROBED])
        first, second = (self._seeded_outputs(few) for _ in range(2))
        self._checked.append(True)
        # kernels that add in any order, as some do on a GPU, agree only up to rounding
        tolerance = torch.finfo(self.w.dtype).eps ** 0.5
        if not torch.allclose(first, second, tolerance, tolerance, equal_nan=True):
            raise ConfigError(
                "two forward passes with the same weights on the same samples differ by up to "
                f"{float((first - second).abs().max()):.3g}, so J has no derivatives: a layer of "
                "the model keeps a statistic, or draws random numbers, in a way of its own; "
                "register what it keeps as a buffer and draw from torch's own generator, or call "
                "model.eval() if that stops it"
            )

    def _seeded_outputs(self, batch: Batch) -> Tensor:
        seed_torch(self.seed)
        return self.outputs(self.w, batch)

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return J(w), a scalar."""
        return self.average_batches(lambda batch: self.evaluate(self.w, batch).objective)


def _check_arguments(objective: Objective, given: Mapping[str, Tensor], batches: Batches) -> None:
    names = {n for n, _ in objective.model.named_parameters(remove_duplicate=False)}
    names |= {n for n, _ in objective.model.named_buffers()}
    if unknown := sorted(set(given) - names):
        raise ConfigError(f"the model has no {unknown[0]!r}; {suggest(unknown[0], names)}")
    if not objective.own.keys() & given.keys():
        raise ConfigError("none of the parameters given is a trainable one of the model")
    if isinstance(batches, Iterator):
        raise ConfigError(
            "`batches` is an iterator, which can be read only once, and derivatives read the data "
            "many times: give a list, or a function that returns the iterator"
        )


class ValueAndGradient(NamedTuple):
    """J(w), a scalar, and ∇J(w), [p]."""

    value: Tensor
    gradient: Tensor


def gradient(point: LocalObjective) -> Tensor:
    """Return ``∇J(w) = 1/N Σ ∇l(w; xᵢ, yᵢ) + Σ λ∇R(w)``, [p]; reduction: mean over N samples."""
    return point.average_batches(
        lambda batch: grad(lambda w: point.evaluate(w, batch).objective)(point.w)
    )


def value_and_gradient(point: LocalObjective) -> ValueAndGradient:
    """Return J and ∇J from one pass over the data."""

    def both(batch: Batch) -> Tensor:
        slope, value = grad_and_value(lambda w: point.evaluate(w, batch).objective)(point.w)
        return torch.cat([value.reshape(1), slope])

    value, slope = point.average_batches(both).split([1, point.space.size])
    return ValueAndGradient(value.squeeze(0), slope)


def directional_derivative(point: LocalObjective, direction: Tensor) -> Tensor:
    """Return ``d/dt J(w + t v) at t = 0 = ∇J(w)ᵀv``, a scalar.

    Args:
        point: w and the samples.
        direction: v [p], which is not normalised.
    """
    return gradient(point) @ direction
