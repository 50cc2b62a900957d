"""Samples of a P that is known: Gaussian classes, noisy lines and polynomials, random networks."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.rng import named_generator
from truerisk.data.samples import Samples
from truerisk.task import get_task

ARRANGEMENTS = ("simplex", "random")


@dataclass(frozen=True)
class GaussianPopulation:
    """x = A (m_k + z), z ~ N(0, I), k ~ prior: class k is N(A m_k, A Aᵀ).

    ``means`` m [K, d] are in whitened units, where Euclidean distance is Mahalanobis distance;
    ``mixing`` is A [d, d].
    """

    means: Tensor
    mixing: Tensor
    prior: Tensor

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, d] and classes y [n].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device = generator.device
        y = torch.multinomial(self.prior.to(device), n, replacement=True, generator=generator)
        z = self.means.new_empty(n, self.means.shape[1], device=device).normal_(generator=generator)
        return (self.means.to(device)[y] + z) @ self.mixing.to(device).T, y

    def expect_errors(self, weights: Tensor, bias: float = 0.0) -> float:
        """Compute the 0–1 risk of a linear rule for two classes, the second where wᵀx + b > 0.

        wᵀx + b is normal in each class, of mean wᵀA m_k + b and deviation ‖Aᵀw‖.

        Args:
            weights: w [d].
            bias: b.

        >>> source = gaussians(num_samples=1, distance=2.0).population
        >>> w = torch.linalg.solve(source.mixing.T, source.means[1] - source.means[0])
        >>> round(source.expect_errors(w), 6)  # Φ(−Δ/2)
        0.158655
        """
        along = self.mixing.double().T @ weights.double().cpu()
        margins = (self.means.double() @ along + bias) / along.norm()
        sides = torch.tensor([1.0, -1.0], dtype=torch.float64)
        return float((self.prior.double() * torch.special.ndtr(sides * margins)).sum())

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(k | x) = softmax(log prior_k − |A⁻¹x − m_k|²/2) at raw x, [n, K]."""
        # solved rather than inverted, as A may be badly conditioned
        white = torch.linalg.solve(self.mixing.to(x), x.T).T
        means = self.means.to(x)
        scores = white @ means.T - means.square().sum(1) / 2 + self.prior.to(x).log()
        return scores.softmax(1)


def gaussians(
    num_samples: int = 2000,
    classes: int = 2,
    dimension: int = 2,
    distance: float = 2.0,
    arrangement: str = "simplex",
    condition: float = 1.0,
    prior: Sequence[float] | None = None,
    population_seed: int = 0,
    seed: int | None = None,
) -> Samples:
    """Draw samples of K Gaussian classes.

    Args:
        num_samples: of all splits together.
        classes: K.
        dimension: d, the number of features.
        distance: Δ, in Mahalanobis' sense.
        arrangement: ``simplex`` puts all class means at the distance Δ from each other; two equally
            likely classes then have the Bayes error Φ(−Δ/2). ``random`` draws the means from
            N(0, Δ²/(2d) I), so that their mean squared distance is Δ².
        condition: condition number of the covariance, whose largest eigenvalue is 1.
        prior: probabilities of the classes; None for equal ones.
        population_seed: fixes P.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range, or a simplex of K classes in fewer than K−1 dimensions.
    """
    _check_numbers(num_samples, classes, dimension, distance, condition, prior)
    draw = named_generator(population_seed, "gaussians")
    means = _place_means(arrangement, classes, dimension, float(distance), draw)
    scale = torch.logspace(0, -0.5, dimension, base=float(condition), dtype=torch.float64)
    mixing = _draw_rotation(dimension, draw) * scale
    if prior is None:
        prior = [1.0] * classes
    weights = torch.tensor(list(prior))
    # single precision from here on, so that samples and posterior belong to one P
    population = GaussianPopulation(means.float(), mixing.float(), weights / weights.sum())
    x, y = population.sample(num_samples, named_generator(seed or 0, "samples"))
    names = range(classes)
    return Samples(x, y, "classification", population=population, class_names=names)


def _check_numbers(
    n: int, classes: int, d: int, distance: float, condition: float, prior: Sequence[float] | None
) -> None:
    least = {"num_samples": 1, "classes": 2, "dimension": 1, "distance": 0, "condition": 1}
    for (key, bound), value in zip(
        least.items(), (n, classes, d, distance, condition), strict=True
    ):
        if value < bound:
            raise ConfigError(f"data.source.{key} is {value}: give at least {bound}")
    if prior is not None and (len(prior) != classes or min(prior) <= 0):
        raise ConfigError(f"data.source.prior is {list(prior)}: give {classes} positive numbers")


def _place_means(
    arrangement: str, classes: int, d: int, distance: float, draw: torch.Generator
) -> Tensor:
    if arrangement == "random":
        unit = torch.randn(classes, d, generator=draw, dtype=torch.float64)
        return unit * distance / (2 * d) ** 0.5
    if arrangement != "simplex":
        hint = suggest(str(arrangement), ARRANGEMENTS)
        raise ConfigError(f"data.source.arrangement is '{arrangement}': {hint}")
    if d < classes - 1:
        raise ConfigError(
            f"data.source.dimension is {d}: {classes} classes equally far apart need at least "
            f"{classes - 1}; raise it, or set data.source.arrangement=random"
        )
    return _build_simplex(classes) @ _draw_rotation(d, draw)[: classes - 1] * distance


def _build_simplex(classes: int) -> Tensor:
    """Corners [K, K−1] at distance 1 from each other, their centre at 0.

    >>> torch.pdist(_build_simplex(3)).round(decimals=6)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    basis = torch.eye(classes, dtype=torch.float64)
    # the rest of an orthogonal basis is what is orthogonal to the centre
    basis[:, 0] = 1.0
    return torch.linalg.qr(basis).Q[:, 1:] / 2**0.5


def _draw_rotation(d: int, draw: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64)).Q


@dataclass(frozen=True)
class PolynomialPopulation:
    """x ~ U[−1, 1], y = Σ cₖ xᵏ + noise · z with z ~ N(0, 1).

    >>> PolynomialPopulation((1.0, 0.0, 2.0), 0.1).mean(torch.tensor([[3.0]]))
    tensor([[19.]])
    """

    coefficients: tuple[float, ...]
    noise: float

    def mean(self, x: Tensor) -> Tensor:
        """Compute E[y | x] = Σ cₖ xᵏ, [n, 1], at raw x [n, 1]."""
        value = torch.zeros_like(x)
        for c in reversed(self.coefficients):
            value = value * x + c
        return value

    @property
    def noise_variance(self) -> float:
        """The variance of y given x."""
        return self.noise**2

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, 1] and y [n, 1].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        draws = torch.empty(n, 1, device=generator.device, dtype=torch.float32)
        x = draws.uniform_(generator=generator) * 2 - 1
        z = draws.normal_(generator=generator)
        return x, self.mean(x) + self.noise * z


def polynomial(
    num_samples: int = 250,
    coefficients: Sequence[float] = (0.0, -3.0, 0.0, 4.0),
    noise: float = 0.2,
    seed: int | None = None,
) -> Samples:
    """Draw samples of a polynomial and noise.

    Args:
        num_samples: of all splits together.
        coefficients: c₀, c₁, ….
        noise: standard deviation of what is added to the polynomial.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: no coefficients, no samples, or a negative noise.
    """
    if not len(coefficients):
        raise ConfigError("data.source.coefficients is empty: give c0, c1, … as in [0, 1]")
    if num_samples < 1:
        raise ConfigError(f"data.source.num_samples is {num_samples}: give at least 1")
    if noise < 0:
        raise ConfigError(f"data.source.noise is {noise}: a standard deviation is not negative")
    population = PolynomialPopulation(tuple(float(c) for c in coefficients), float(noise))
    x, y = population.sample(num_samples, named_generator(seed or 0, "samples"))
    return Samples(x, y, "regression", population=population)


@dataclass(frozen=True)
class LinearPopulation:
    """x ~ N(0, Σ) with Σ = A Aᵀ, y = βᵀx + noise · z with z ~ N(0, 1).

    ``weights`` β [d, 1]; ``mixing`` is A [d, d].
    """

    weights: Tensor
    mixing: Tensor
    noise: float

    def mean(self, x: Tensor) -> Tensor:
        """Compute E[y | x] = βᵀx, [n, 1], at raw x [n, d]."""
        return x @ self.weights.to(x)

    @property
    def noise_variance(self) -> float:
        """The variance of y given x."""
        return self.noise**2

    def expect_squared_error(self, weights: Tensor, bias: Tensor) -> float:
        """Compute E (wᵀx + b − y)² = (w − β)ᵀΣ(w − β) + b² + σ².

        Args:
            weights: w [d, 1].
            bias: b, one number.
        """
        off = self.mixing.double().T @ (weights.double().cpu() - self.weights.double())
        return float(off.square().sum() + bias.double().cpu().square().sum()) + self.noise**2

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, d] and y [n, 1].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device = generator.device
        size = (n, len(self.weights))
        white = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        x = white @ self.mixing.to(device).T
        z = torch.randn(n, 1, generator=generator, device=device, dtype=torch.float32)
        return x, self.mean(x) + self.noise * z


def noisy_linear(
    num_samples: int = 200,
    dimension: int = 20,
    condition: float = 1.0,
    spectrum: Sequence[float] | None = None,
    signal: float = 1.0,
    noise: float = 1.0,
    population_seed: int = 0,
    seed: int | None = None,
) -> Samples:
    """Draw samples of a linear function and noise, at Gaussian inputs of a given covariance.

    Args:
        num_samples: of all splits together.
        dimension: d, the number of features.
        condition: condition number of the covariance, whose largest eigenvalue is 1.
        spectrum: all eigenvalues of it, in place of ``dimension`` and ``condition``.
        signal: ‖β‖, whose direction is drawn, as are the covariance's axes.
        noise: standard deviation of what is added.
        population_seed: fixes P.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.
    """
    values = list(spectrum or [])
    if spectrum is not None and not (values and all(0 <= v < math.inf for v in values)):
        raise ConfigError(f"data.source.spectrum is {values}: give variances, which are ≥ 0")
    least = {"num_samples": 1, "dimension": 1, "condition": 1, "signal": 0, "noise": 0}
    given = (num_samples, dimension, condition, signal, noise)
    for (key, bound), value in zip(least.items(), given, strict=True):
        check_float(f"data.source.{key}", value, bound, sys.float_info.max)
    draw = named_generator(population_seed, "noisy_linear")
    if values:
        variances = torch.tensor(values, dtype=torch.float64)
    else:
        variances = torch.logspace(0, -1, dimension, base=float(condition), dtype=torch.float64)
    mixing = _draw_rotation(len(variances), draw) * variances.sqrt()
    direction = torch.randn(len(variances), 1, generator=draw, dtype=torch.float64)
    weights = signal * direction / direction.norm()
    # single precision from here on, so that samples and risks belong to one P
    population = LinearPopulation(weights.float(), mixing.float(), float(noise))
    x, y = population.sample(num_samples, named_generator(seed or 0, "samples"))
    return Samples(x, y, "regression", population=population)


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
    mean 0 and variance 1 on 2¹⁴ draws, which leaves them within about 0.02 of both on all of P.

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
        names = range(outputs)
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
