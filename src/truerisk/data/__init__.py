"""Samples, their splits, and the batches a run learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truerisk.data.arrays import arrays
from truerisk.data.gaussians import Gaussians, gaussians
from truerisk.data.hub import hub
from truerisk.data.mnist1d import mnist1d
from truerisk.data.plan import BatchPlan
from truerisk.data.polynomial import Polynomial, polynomial
from truerisk.data.samples import DataInfo, Inputs, Population, Samples
from truerisk.data.scikit import breast_cancer, diabetes, digits, iris, wine
from truerisk.data.split import LoaderSplit, Split, TensorSplit
from truerisk.data.standardizer import Standardizer
from truerisk.data.table import table
from truerisk.data.teacher import Teacher, teacher

if TYPE_CHECKING:
    from truerisk.data.data_module import DataModule
    from truerisk.data.none import NoData

__all__ = [
    "BatchPlan",
    "DataInfo",
    "DataModule",
    "Gaussians",
    "Inputs",
    "LoaderSplit",
    "NoData",
    "Polynomial",
    "Population",
    "Samples",
    "Split",
    "Standardizer",
    "Teacher",
    "TensorSplit",
    "arrays",
    "breast_cancer",
    "diabetes",
    "digits",
    "gaussians",
    "hub",
    "iris",
    "mnist1d",
    "polynomial",
    "table",
    "teacher",
    "wine",
]


def __getattr__(name: str) -> Any:
    """Import `DataModule`, and with it Lightning, when it is first asked for."""
    if name == "DataModule":
        from truerisk.data.data_module import DataModule

        return DataModule
    if name == "NoData":
        from truerisk.data.none import NoData

        return NoData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
