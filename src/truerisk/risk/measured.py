"""A measured number, as summaries keep it: apart from estimates, so that reading needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """A measured number, its standard error, and after which epoch it was measured.

    ``size`` is the number of independent samples, or groups of them, behind a number that estimates
    one of a larger population; None where it is all there is, or was told by an earlier version.
    """

    value: float
    stderr: float | None = None
    epoch: int | None = None
    size: int | None = None


def read_measured(fields: Mapping[str, Any]) -> Measured:
    """Read a measured number from JSON, which has words for ∞ and null for nan.

    >>> read_measured({"value": None, "stderr": "inf", "epoch": 3})
    Measured(value=nan, stderr=inf, epoch=3, size=None)
    """
    value, stderr = fields["value"], fields.get("stderr")
    return Measured(**{
        **fields,
        "value": math.nan if value is None else float(value),
        "stderr": None if stderr is None else float(stderr),
    })  # fmt: skip


class Monitor(NamedTuple):
    """What a run followed: its best weights, its stops and its tuning go by this value.

    Args:
        name: of the value.
        higher_is_better: as a metric may say.
    """

    name: str = "risk/val"
    higher_is_better: bool = False

    def orient(self, value: float) -> float:
        """Turn a value so that less is better, and back.

        >>> Monitor("metric/f1/val", True).orient(0.9), Monitor().orient(0.9)
        (-0.9, 0.9)
        """
        return -value if self.higher_is_better else value

    def at(self, split: str) -> str:
        """Name the same number on another split.

        >>> Monitor("metric/f1/val", True).at("test")
        'metric/f1/test'
        """
        return f"{self.name.rpartition('/')[0]}/{split}"


FOLLOWED_RISK = Monitor()
"""What is followed where nothing else is asked for."""


def read_monitor(facts: Mapping[str, Any]) -> Monitor:
    """Read what a run followed from its ``metadata.json``; earlier versions followed the risk."""
    return Monitor(**facts.get("monitor", {}))


def higher_is_better(metric: str, facts: Mapping[str, Any]) -> bool:
    """Tell whether a measured number is better where it is higher.

    Args:
        metric: its name, such as ``metric/f1/test``.
        facts: the content of the run's ``metadata.json``.
    """
    head, _, rest = metric.partition("/")
    known: Mapping[str, Any] = facts.get("metrics", {})
    return head == "metric" and bool(known.get(rest.partition("/")[0]))
