"""Curves over seeds: a mean and an interval at every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from truerisk.reports.collect import Curve, Run
from truerisk.reports.estimate import LEVEL

POINTS = 200
"""Most points of a curve that is drawn."""


class Band(NamedTuple):
    """The mean over the runs that got so far, its interval (nan for one run), and their number."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def band(runs: Sequence[Run], name: str) -> Band | None:
    """A metric's mean over runs at every epoch; None where no run has it.

    Runs that ended early are not carried on, so the mean is drawn as far as half of the runs got.
    """
    curves = [run.curves[name] for run in runs if name in run.curves]
    if not curves:
        return None
    epoch = np.unique(np.concatenate([curve.epoch for curve in curves]))
    values = np.array([_on(curve, epoch) for curve in curves])
    n = np.isfinite(values).sum(0)
    keep = np.flatnonzero(2 * n >= n.max()) if n.max() else np.array([], dtype=int)
    keep = keep[np.unique(np.linspace(0, len(keep) - 1, POINTS).round().astype(int))]
    return Band(epoch[keep], *intervals(values[:, keep]), n[keep])


def _on(curve: Curve, epoch: np.ndarray) -> np.ndarray:
    values = np.full(len(epoch), np.nan)
    values[np.searchsorted(epoch, curve.epoch)] = curve.value
    return np.where(np.isfinite(values), values, np.nan)


def intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and Student's interval of each column of [runs, columns], of the finite values."""
    there = np.isfinite(values)
    n = there.sum(0)
    mean = np.where(there, values, 0.0).sum(0) / np.maximum(n, 1)
    squares = (np.where(there, values - mean, 0.0) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr = np.sqrt(squares / (n - 1) / n)
        reach = special.stdtrit(n - 1, (1 + LEVEL) / 2) * stderr
    return mean, mean - reach, mean + reach
