"""Targets made by a random network, so that P is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest
from truerisk.core.rng import named_generator
from truerisk.data.samples import Samples
from truerisk.task import get_task

TASKS = ("classification", "regression")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "identity": torch.Tensor.clone,
}
PROBES = 2**14


@dataclass(frozen=True)
class TeacherPopulation:
    """x ~ N(0, I) and a network h whose outputs have mean 0 and variance 1 under P.

    Regression: y = h(x) + noise · z, z ~ N(0, I). Classification: y ~ softmax(h(x) / temperature).
    """

    weights: tuple[Tensor, ...]
    activation: str
    shift: Tensor
    scale: Tensor
    task: str
    noise: float
    temperature: float

    def mean(self, x: Tensor) -> Tensor:
        """Compute the network's outputs h(x) [n, outputs] at raw x: E[y | x] of a regression."""
        *hidden, last = (w.to(x) for w in self.weights)
        for w in hidden:
            x = ACTIVATIONS[self.activation](x @ w)
        return (x @ last - self.shift.to(x)) / self.scale.to(x)

    def bayes(self, x: Tensor) -> Tensor:
        """Return class probabilities [n, K] at raw x."""
        return (self.mean(x) / self.temperature).softmax(1)

    @property
    def noise_variance(self) -> float:
        """The variance of y given x, in each output of a regression."""
        return self.noise**2

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, d], and classes [n] or targets [n, outputs].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device = generator.device
        size = (n, len(self.weights[0]))
        x = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        if get_task(self.task).has_classes:
            return x, torch.multinomial(self.bayes(x), 1, generator=generator).squeeze(1)
        clean = self.mean(x)
        noise = torch.empty_like(clean).normal_(generator=generator)
        return x, clean + self.noise * noise


def teacher(
    num_samples: int = 2000,
    dimension: int = 10,
    outputs: int = 1,
    task: str = "regression",
    width: int = 10,
    depth: int = 2,
    activation: str = "tanh",
    noise: float = 0.1,
    temperature: float = 0.2,
    population_seed: int = 0,
    seed: int | None = None,
) -> Samples:
    """Draw samples that a random network labels.

    The network has no biases and weights from N(0, 1/fan-in); its outputs are shifted and scaled to
    mean 0 and variance 1, measured on 2¹⁴ draws.

    Args:
        num_samples: of all splits together.
        dimension: number of features.
        outputs: target columns, or classes.
        task: ``regression`` or ``classification``.
        width: hidden units a layer.
        depth: weight layers.
        activation: between the layers.
        noise: standard deviation of what is added to the targets of a regression.
        temperature: of the softmax that classes are drawn from.
        population_seed: fixes P.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range, an unknown task or activation, fewer than two classes.
    """
    _check_arguments(locals())
    # apart from the samples' draws, so that other samples come of the same P
    draw = named_generator(population_seed, "teacher")
    sizes = [dimension, *[width] * (depth - 1), outputs]
    weights = tuple(
        torch.randn(a, b, generator=draw) / a**0.5 for a, b in itertools.pairwise(sizes)
    )
    zero, one = torch.zeros(outputs), torch.ones(outputs)
    bare = TeacherPopulation(
        weights, activation, zero, one, task, noise=float(noise), temperature=float(temperature)
    )
    # in double precision, as a sum of thousands would lose digits of P otherwise
    probe = bare.mean(torch.randn(PROBES, dimension, generator=draw)).double()
    shift, scale = probe.mean(0).float(), probe.std(0, correction=0).float()
    population = replace(bare, shift=shift, scale=scale)
    x, y = population.sample(num_samples, named_generator(seed or 0, "samples"))
    names = None
    if get_task(task).has_classes:
        names = [str(k) for k in range(outputs)]
    return Samples(x, y, task, population=population, class_names=names)


def _check_arguments(given: dict) -> None:
    least = {"num_samples": 1, "dimension": 1, "width": 1, "depth": 1, "noise": 0}
    for key, known in (("task", TASKS), ("activation", ACTIVATIONS)):
        if given[key] not in known:
            hint = suggest(str(given[key]), known)
            raise ConfigError(f"data.source.{key} is '{given[key]}': {hint}")
    least["outputs"] = 1 + get_task(given["task"]).has_classes
    for key, bound in least.items():
        if given[key] < bound:
            raise ConfigError(f"data.source.{key} is {given[key]}: give at least {bound}")
    if given["temperature"] <= 0:
        raise ConfigError(f"data.source.temperature is {given['temperature']}: give more than 0")
