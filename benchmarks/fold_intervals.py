"""``python -m benchmarks.fold_intervals``: how often intervals over folds hold a recipe's metric.

Two classes of normal inputs, a third of the samples in the second, and linear discriminants of
them. The truth is the mean over training sets of a study's size less one fold, each measured on
20,000 samples. Intervals are those of a report, from the samples' influences on metrics that are no
means of samples. Five minutes of one core; the figures are in docs/statistics.md.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from truerisk.metric.functionals import (
    CellCounts,
    Functional,
    average_rates,
    correlate_classes,
    find_influences,
    rank_positives,
)
from truerisk.reports.learning_problem import find_limits
from truerisk.reports.seed_mean import FoldLosses, estimate_mean, pool_folds

STUDIES, TRUTHS, LARGE = 600, 300, 20_000
DIMENSIONS, SHIFT, SHARE = 4, 0.75, 1 / 3
METRICS = ("balanced_accuracy", "f1", "matthews", "roc_auc", "average_precision")


def draw_samples(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [n, d] and classes [n], the second class last."""
    y = (np.arange(n) >= n - round(SHARE * n)).astype(int)
    return draw.normal(size=(n, DIMENSIONS)) + SHIFT * y[:, None], y


def fit_scores(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Scores [m] of new inputs by the linear discriminant of samples, above 0 for class 1."""
    means = [x[y == k].mean(0) for k in (0, 1)]
    rest = np.concatenate([x[y == k] - means[k] for k in (0, 1)])
    slope = np.linalg.solve(rest.T @ rest / (len(x) - 2), means[1] - means[0])
    return (new - (means[0] + means[1]) / 2) @ slope + math.log(y.mean() / (1 - y.mean()))


def make_functionals(y: np.ndarray, scores: np.ndarray) -> dict[str, Functional]:
    """The metrics of predictions as functions of the samples' weights."""
    target, order = torch.as_tensor(y), torch.as_tensor(scores)
    counts = CellCounts(target, (order > 0).long(), 2, False)
    positive = (target == 1)[:, None]
    return {
        "balanced_accuracy": average_rates("Recall", counts, "macro"),
        "f1": average_rates("F1Score", counts, None, binary=True),
        "matthews": correlate_classes(counts),
        "roc_auc": rank_positives("AUROC", positive, order[:, None], "macro"),
        "average_precision": rank_positives("AveragePrecision", positive, order[:, None], "macro"),
    }


def measure_folds(n: int, folds: int, draw: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Of each metric, by fold, its value plus each sample's influence on it."""
    x, y = draw_samples(n, draw)
    fold = np.empty(n, dtype=int)
    for k in (0, 1):  # stratified
        members = draw.permutation(np.flatnonzero(y == k))
        fold[members] = np.arange(len(members)) % folds
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for k in range(folds):
        out = fold == k
        scores = fit_scores(x[~out], y[~out], x[out])
        for name, functional in make_functionals(y[out], scores).items():
            value, influences = find_influences(functional, int(out.sum()))
            found[name].append((value + influences[:, 0]).numpy())
    return found


def bound_metric(name: str, values: list[np.ndarray]) -> tuple[float, float]:
    """The interval that a report shows of a metric of folds."""
    folds, overlap = {(0, k): each for k, each in enumerate(values)}, 1 / (len(values) - 1)
    found, freedom = estimate_mean([v.mean() for v in values], overlap=overlap), len(values) - 1.0
    pooled = pool_folds(FoldLosses(folds, {}), overlap)
    if pooled is not None:
        found, freedom = pooled
    limits = find_limits([], f"metric/{name}/test")._replace(size=min(map(len, values)))
    low, high = limits.bound_closed(found.mean, found.stderr, freedom)
    return float(low), float(high)


def find_truth(n: int, draw: np.random.Generator) -> dict[str, float]:
    """The mean of each metric over training sets of n samples."""
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(TRUTHS):
        x, y = draw_samples(LARGE, draw)
        scores = fit_scores(*draw_samples(n, draw), x)
        for name, functional in make_functionals(y, scores).items():
            values[name].append(float(functional(torch.ones(LARGE, dtype=torch.float64))))
    return {name: float(np.mean(each)) for name, each in values.items()}


def measure_coverage(n: int, folds: int, studies: int = STUDIES) -> dict[str, float]:
    """Share of studies whose interval holds the truth, by metric."""
    draw = np.random.default_rng(n + folds)
    truth, held = find_truth(n - n // folds, draw), dict.fromkeys(METRICS, 0)
    for _ in range(studies):
        for name, values in measure_folds(n, folds, draw).items():
            low, high = bound_metric(name, values)
            held[name] += low <= truth[name] <= high
    return {name: count / studies for name, count in held.items()}


def main() -> None:
    """Print a row for each size of a study."""
    print("|".join(["samples, folds", *METRICS]))
    for n in (60, 150, 300):
        for folds in (5, 10):
            shares = measure_coverage(n, folds).values()
            print("|".join([f"{n}, {folds}", *(f"{share:.1%}" for share in shares)]), flush=True)


if __name__ == "__main__":
    main()
