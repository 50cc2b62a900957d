"""What risks are held against: the best constant's, and where P is known the Bayes risk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.data import RunData
from truerisk.loss import Ordinal, Poisson, Quantile, Squared, Surrogate
from truerisk.metric import Collector, Metric

Exact = (
    nn.MSELoss
    | nn.L1Loss
    | nn.HuberLoss
    | nn.CrossEntropyLoss
    | nn.BCEWithLogitsLoss
    | Ordinal
    | Squared
)


def attains_bayes_risk(surrogate: Surrogate) -> bool:
    """Tell whether `predict_bayes` minimises this surrogate's risk, and not its 0–1 risk alone.

    Log-odds minimise cross-entropy (as it is reported, without label smoothing), logistic and
    ordinal loss, probabilities the squared loss of classes; the mean minimises squared error and,
    as the noise of every known P here is symmetric, absolute and Huber loss.
    """
    return isinstance(surrogate.loss, Exact)


def predict_bayes(data: RunData, surrogate: Surrogate, x: Tensor) -> Tensor:
    """Return outputs [n, output_size] of the Bayes predictor.

    Args:
        data: whose population is known.
        surrogate: the loss that the outputs are for.
        x: inputs [n, *shape] as the model sees them.
    """
    outputs = surrogate.task.bayes_outputs(data.population, data.raw(x), surrogate)
    if x.is_floating_point():
        return outputs.to(x)
    # tokens are whole numbers, and scores of them are not
    return outputs.to(x.device, torch.get_default_dtype())


@torch.no_grad()
def integrate_squared_error(
    data: RunData, surrogate: Surrogate, model: nn.Module
) -> tuple[float, float] | None:
    """Return the true risk of a linear model under squared error in closed form, and Bayes'.

    Args:
        data: whose population may know it.
        surrogate: the loss that the outputs are for.
        model: affine in its inputs, in eval mode.

    Returns:
        Both in the targets' own units; None where the population gives samples alone.
    """
    population: Any = data.population
    if not hasattr(population, "expect_squared_error"):
        return None
    size = data.info.input_shape[0]
    # an affine function is known by its values at the origin and at a point on each axis
    points = torch.cat([torch.zeros(1, size), torch.eye(size)]).to(next(model.parameters()))
    outputs = surrogate.decode_outputs(model(data.standardizer(points))).double()
    risk = population.expect_squared_error(outputs[1:] - outputs[:1], outputs[:1])
    return risk, population.noise_variance


CLOSED = (
    *(nn.MSELoss, nn.L1Loss, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss),
    *(Ordinal, Poisson, Quantile, Squared),
)
"""Losses whose best constant is among those that a task names."""
ROUNDS = 3
"""Times that every output of a constant is tuned in turn, where there is no formula."""
FAR = 1e9
"""How much larger than at its start, or than 1, a constant gets that would grow without end."""
MOST_OUTPUTS = 32
"""Outputs up to which they are."""


@torch.no_grad()
def fit_constant(
    surrogate: Surrogate, y: Tensor, population: Any = None
) -> tuple[Tensor, Tensor] | None:
    """Find the constant outputs with the lowest risk, and the fewest errors, on training targets.

    For squared error that is the mean, for absolute error the median, for cross-entropy and the
    logistic loss the classes' shares; for errors it is the most frequent class.

    Args:
        surrogate: the loss.
        y: the training targets [n, …].
        population: P if it is known; one of tokens may tell their ``marginals``.

    Returns:
        Outputs [1, …] for the risk and for the errors; None where the task names no constant, or
        the loss falls without end.
    """
    candidates = surrogate.task.constant_outputs(surrogate, y)
    # shares of tokens a place are no small table: they are asked for only where P is known
    if not candidates and hasattr(population, "marginals"):
        candidates = [population.marginals().log()]
    if not candidates:
        return None
    candidates = [one.to(y.device, torch.get_default_dtype()) for one in candidates]
    best = min(candidates, key=lambda c: mean_loss(surrogate, c, y))
    if not isinstance(surrogate.loss, CLOSED) and best.numel() <= MOST_OUTPUTS:
        tuned = _tune_constant(surrogate, best, y)
        if tuned is None:
            return None
        best = tuned
    fewest = min(candidates, key=lambda c: mean_error(surrogate, c, y))
    return best, fewest


def constant_losses(surrogate: Surrogate, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the losses [n] that are reported of constant outputs.

    Args:
        surrogate: the loss.
        outputs: [1, …].
        y: targets [n, …].
    """
    if y.ndim == 1 and not y.is_floating_point() and len(y) > surrogate.num_outputs:
        # equal outputs lose as much on all samples of a class
        classes = torch.arange(surrogate.num_outputs, device=y.device)
        return constant_losses(surrogate, outputs, classes)[y]
    spread = outputs.expand(len(y), *outputs.shape[1:])
    return surrogate.report_losses(surrogate(spread, y), spread, y)


def mean_loss(surrogate: Surrogate, outputs: Tensor, y: Tensor) -> float:
    """Return the mean of `constant_losses`."""
    return constant_losses(surrogate, outputs, y).double().mean().item()


def mean_error(surrogate: Surrogate, outputs: Tensor, y: Tensor) -> float:
    """Return the share of targets that constant outputs get wrong; 0 without such errors."""
    errors = surrogate.compute_errors(outputs.expand(len(y), *outputs.shape[1:]), y)
    return 0.0 if errors is None else errors.double().mean().item()


@torch.no_grad()
def choose_constant(
    surrogate: Surrogate, metric: Metric, found: Sequence[Tensor], y: Tensor
) -> Tensor | None:
    """Choose the constant outputs that are best by a metric on training targets.

    Args:
        surrogate: the loss.
        metric: fitted to the task.
        found: what `fit_constant` returned.
        y: the training targets [n, …].

    Returns:
        Outputs [1, …], among those of `fit_constant` and those that the task names; None where the
        metric of a constant is no number, as a correlation is none.
    """
    best, score = None, math.inf
    for one in (*found, *surrogate.task.constant_outputs(surrogate, y)):
        outputs = one.to(y.device, torch.get_default_dtype())
        collector = Collector({"": metric}, surrogate)
        collector.add(outputs.expand(len(y), *outputs.shape[1:]), y)
        try:
            estimate = collector.estimate()[""]
        except Exception:  # a metric of the user's may fail where all predictions are alike
            return None
        values = list(estimate.values.values())
        # torchmetrics has correlations of a constant, which no small change of a sample leaves
        mean = sum(values) / len(values) + 0 * sum(estimate.stderrs.values())
        if metric.higher_is_better:
            mean = -mean
        if mean < score:
            best, score = outputs, mean
    return best


def _tune_constant(surrogate: Surrogate, start: Tensor, y: Tensor) -> Tensor | None:
    """Lower the risk of constant outputs by changing one of them at a time.

    Returns:
        The outputs; None where one of them would grow without end.
    """
    from scipy.optimize import minimize_scalar

    best, far = start.clone(), FAR * max(1.0, float(start.abs().max()))

    def risk(value: float, place: int) -> float:
        # a search along a loss that falls without end goes beyond any number
        tried = best.clone()
        tried.view(-1)[place] = min(max(value, -2 * far), 2 * far)
        return mean_loss(surrogate, tried, y)

    for _ in range(ROUNDS):
        before = mean_loss(surrogate, best, y)
        for place in range(best.numel()):
            now = float(best.view(-1)[place])
            found = minimize_scalar(risk, bracket=(now - 0.5, now + 0.5), args=(place,))
            if found.fun < mean_loss(surrogate, best, y):
                if not abs(float(found.x)) < far:
                    return None
                best.view(-1)[place] = float(found.x)
        if before - mean_loss(surrogate, best, y) <= 1e-9 * abs(before):
            break
    return best
