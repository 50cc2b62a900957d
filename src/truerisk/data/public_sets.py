"""Small public data sets: those that come with scikit-learn, and MNIST-1D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from truerisk.core.errors import ConfigError
from truerisk.core.rng import fork_state
from truerisk.data.samples import Samples
from truerisk.data.source_files import load_or_make


def _build_samples(bunch: Any) -> Samples:
    x, y = torch.as_tensor(bunch.data), torch.as_tensor(bunch.target).long()
    return Samples(x, y, "classification", class_names=[str(n) for n in bunch.target_names])


def digits() -> Samples:
    """1797 handwritten digits of shape (1, 8, 8), ink from 0 to 16 (Alpaydin & Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = torch.as_tensor(bunch.images).unsqueeze(1), torch.as_tensor(bunch.target).long()
    return Samples(x, y, "classification", class_names=bunch.target_names.tolist())


def breast_cancer() -> Samples:
    """569 tumours, 30 measurements of cell nuclei, malignant or benign (Street et al. 1993)."""
    from sklearn.datasets import load_breast_cancer

    return _build_samples(load_breast_cancer())


def wine() -> Samples:
    """178 wines of three cultivars, 13 chemical measurements (Forina et al. 1988)."""
    from sklearn.datasets import load_wine

    return _build_samples(load_wine())


def iris() -> Samples:
    """150 flowers of three species, 4 lengths in cm (Fisher 1936)."""
    from sklearn.datasets import load_iris

    return _build_samples(load_iris())


def diabetes() -> Samples:
    """442 patients, 10 baseline variables, disease progression after a year (Efron et al. 2004)."""
    from sklearn.datasets import load_diabetes

    # scikit-learn's scaling has seen the test samples
    bunch = load_diabetes(scaled=False)
    x, y = torch.as_tensor(bunch.data), torch.as_tensor(bunch.target)
    return Samples(x.double(), y.double().unsqueeze(1), "regression")


def mnist1d(
    num_samples: int = 5000,
    train_split: float = 0.8,
    seed: int = 42,
    padding: Sequence[int] = (36, 60),
    scale_coeff: float = 0.4,
    max_translation: int = 48,
    corr_noise_scale: float = 0.25,
    iid_noise_scale: float = 2e-2,
    shear_scale: float = 0.75,
    shuffle_seq: bool = False,
    final_seq_length: int = 40,
) -> Samples:
    """Generate signals x of shape (1, final_seq_length) with the ``mnist1d`` package.

    The arguments are the package's own, and their defaults give the published data. Data made once
    is kept for the next run in the same process, and on disk for the next process.

    Source: Greydanus & Kobak, "Scaling Down Deep Learning with MNIST-1D" (2020).

    Args:
        num_samples: of all splits together.
        train_split: share before the test set; with 1 there is none.
        seed: of the signals.
        padding: least and most zeros put behind a template.
        scale_coeff: spread of the amplitudes.
        max_translation: places that a signal is moved by at most.
        corr_noise_scale: standard deviation of the smooth noise.
        iid_noise_scale: standard deviation of the white noise.
        shear_scale: largest slope that is added.
        shuffle_seq: whether all signals are permuted alike.
        final_seq_length: points of a signal.

    Raises:
        ConfigError: fewer than 10 samples, or a ``train_split`` outside (0, 1].
    """
    if num_samples < 10:
        raise ConfigError(f"data.source.num_samples is {num_samples}: ten classes need at least 10")
    if not 0 < train_split <= 1:
        raise ConfigError(f"data.source.train_split is {train_split}: give a fraction in (0, 1]")
    # hashable, as the last few are remembered
    return _make_samples(tuple(sorted(dict(locals(), padding=tuple(padding)).items())))


PACKAGES = ("mnist1d", "numpy", "scipy")
"""Whose versions the signals may hang on."""


@lru_cache(maxsize=4)
def _make_samples(numbers: tuple[tuple[str, Any], ...]) -> Samples:
    asked = dict(numbers)
    share = asked.pop("train_split")
    data = load_or_make(
        "mnist1d", PACKAGES, partial(_generate_signals, asked), sorted(asked.items())
    )
    x, y = torch.as_tensor(data["x"]).unsqueeze(1), torch.as_tensor(data["y"]).long()
    names = range(10)
    count = int(len(y) * share)  # as the package divides them
    test = None if share == 1 else (x[count:], y[count:])
    return Samples(x[:count], y[:count], "classification", test=test, class_names=names)


def _generate_signals(numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the package generates, of both its splits: a second for the published data."""
    # the package seeds and draws from the global generators
    with fork_state():
        from mnist1d.data import get_dataset_args, make_dataset

        args = get_dataset_args()
        vars(args).update(numbers)
        data = make_dataset(args)
    return {key: np.concatenate([data[key], data[f"{key}_test"]]) for key in ("x", "y")}
