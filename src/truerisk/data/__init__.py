"""Samples, their splits, and the batches a run learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truerisk.data.encoder import Standardizer
from truerisk.data.hub import hub
from truerisk.data.image_sets import cifar10, cifar100, fashion_mnist, mnist
from truerisk.data.modular import ModularPopulation, modular_addition
from truerisk.data.own_files import arrays, table
from truerisk.data.plan import BatchPlan
from truerisk.data.public_sets import breast_cancer, diabetes, digits, iris, mnist1d, wine
from truerisk.data.rare_classes import RareClassPopulation, rare_classes
from truerisk.data.run_data import NoData, RunData
from truerisk.data.samples import (
    ClassPopulation,
    DataInfo,
    Inputs,
    Population,
    Samples,
    TargetPopulation,
)
from truerisk.data.sequences import (
    AddingPopulation,
    CopyPopulation,
    ParityPopulation,
    TemporalOrderPopulation,
    adding,
    copy_memory,
    parity,
    temporal_order,
)
from truerisk.data.split import LoaderSplit, Split, TensorSplit
from truerisk.data.synthetic import (
    GaussianPopulation,
    LinearPopulation,
    PolynomialPopulation,
    TeacherPopulation,
    gaussians,
    noisy_linear,
    polynomial,
    teacher,
)
from truerisk.data.text_source import text

if TYPE_CHECKING:
    from truerisk.data.data_module import DataModule

__all__ = [
    "AddingPopulation",
    "BatchPlan",
    "ClassPopulation",
    "CopyPopulation",
    "DataInfo",
    "DataModule",
    "GaussianPopulation",
    "Inputs",
    "LinearPopulation",
    "LoaderSplit",
    "ModularPopulation",
    "NoData",
    "ParityPopulation",
    "PolynomialPopulation",
    "Population",
    "RareClassPopulation",
    "RunData",
    "Samples",
    "Split",
    "Standardizer",
    "TargetPopulation",
    "TeacherPopulation",
    "TemporalOrderPopulation",
    "TensorSplit",
    "adding",
    "arrays",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "copy_memory",
    "diabetes",
    "digits",
    "fashion_mnist",
    "gaussians",
    "hub",
    "iris",
    "mnist",
    "mnist1d",
    "modular_addition",
    "noisy_linear",
    "parity",
    "polynomial",
    "rare_classes",
    "table",
    "teacher",
    "temporal_order",
    "text",
    "wine",
]


def __getattr__(name: str) -> Any:
    """Import `DataModule`, and with it Lightning, when it is first asked for."""
    if name == "DataModule":
        from truerisk.data.data_module import DataModule

        return DataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
