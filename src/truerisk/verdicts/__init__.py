"""Published claims, judged by what runs measured."""

from truerisk.verdicts.claim import Claim, Finding, Verdict, claim, exact_finding, mean_finding
from truerisk.verdicts.reproduction import write_grids
from truerisk.verdicts.runs import Runs, load_last_weights, read_metric, read_series, read_setting

__all__ = [
    "Claim",
    "Finding",
    "Runs",
    "Verdict",
    "claim",
    "exact_finding",
    "load_last_weights",
    "mean_finding",
    "read_metric",
    "read_series",
    "read_setting",
    "write_grids",
]
