"""Metrics: what is measured beside the risk, on every split, with standard errors.

A class is looked up when it is asked for, so that torchmetrics is imported by runs that use it.
"""

from truerisk.metric.collector import Collector, fit_metrics
from truerisk.metric.confusion import ConfusionMatrix
from truerisk.metric.metric import (
    BitsPerByte,
    BrierScore,
    Metric,
    MetricEstimate,
    NegativeLogLikelihood,
    Perplexity,
    TorchMetric,
)

__all__ = [
    "BitsPerByte",
    "BrierScore",
    "Collector",
    "ConfusionMatrix",
    "Metric",
    "MetricEstimate",
    "NegativeLogLikelihood",
    "Perplexity",
    "TorchMetric",
    "fit_metrics",
]
