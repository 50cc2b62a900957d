"""Published claims, judged by what runs measured."""

from truerisk.verdicts.claim import Claim, Verdict, claim, claims_of
from truerisk.verdicts.finding import Finding, exactly, mean
from truerisk.verdicts.runs import Runs, last_weights, series, setting

__all__ = [
    "Claim",
    "Finding",
    "Runs",
    "Verdict",
    "claim",
    "claims_of",
    "exactly",
    "last_weights",
    "mean",
    "series",
    "setting",
]
