"""Gaussian classes with a shared covariance: P, posterior and Bayes risk are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest
from truerisk.core.rng import named_generator
from truerisk.data.samples import Samples

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
    names = [str(k) for k in range(classes)]
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
