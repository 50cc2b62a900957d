"""The small real data sets that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import torch

from truerisk.data.samples import Samples


def _build_samples(bunch: Any) -> Samples:
    x, y = torch.as_tensor(bunch.data), torch.as_tensor(bunch.target).long()
    return Samples(x, y, "classification", class_names=[str(n) for n in bunch.target_names])


def digits() -> Samples:
    """1797 handwritten digits of shape (1, 8, 8), ink from 0 to 16 (Alpaydin & Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = torch.as_tensor(bunch.images).unsqueeze(1), torch.as_tensor(bunch.target).long()
    return Samples(x, y, "classification", class_names=[str(n) for n in bunch.target_names])


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
