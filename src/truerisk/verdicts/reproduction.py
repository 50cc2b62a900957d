"""A reproduction: a study, the claims about it, and its figure."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from truerisk import reproductions
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.files import write_atomic
from truerisk.verdicts.claim import Claim, Verdict, claims_of
from truerisk.verdicts.finding import Finding
from truerisk.verdicts.runs import Runs

WORST: tuple[Verdict, ...] = ("does not hold", "inconclusive", "holds")
"""Verdicts, in the order in which one decides for all."""


class Judged(NamedTuple):
    """One claim, what was measured for it, and what follows."""

    claim: Claim
    finding: Finding
    verdict: Verdict


class Reproduction:
    """What ``conf/experiment/NAME.yaml`` and ``truerisk/reproductions/NAME.py`` say together.

    The module's docstring is the claim in a sentence, then what more there is to know. It defines
    ``FORMULA``, ``SOURCE``, ``COST`` (how long the study takes), ``QUICK`` (overrides that make it
    smaller), claims (see ``truerisk.verdicts.claim``), and ``draw(runs, figure)``.
    """

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.module = name, module

    @property
    def sentence(self) -> str:
        """The claim in a sentence."""
        return (self.module.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")

    @property
    def remarks(self) -> list[str]:
        """What more there is to know, in paragraphs."""
        paragraphs = (self.module.__doc__ or "").strip().split("\n\n")[1:]
        return [" ".join(text.split()) for text in paragraphs]

    def __getattr__(self, key: str) -> Any:
        """``formula``, ``source``, ``cost`` and ``quick`` are constants of the module."""
        if key in ("formula", "source", "cost", "quick"):
            return getattr(self.module, key.upper())
        raise AttributeError(key)

    def study(self, quick: bool) -> str:
        """The name of the study's folder below ``outputs/``."""
        return f"{self.name}-quick" if quick else self.name

    def overrides(self, quick: bool) -> list[str]:
        """The command line of the study, after ``truerisk train --multirun``."""
        own = [f"experiment={self.name}", f"study={self.study(quick)}"]
        return [*own, *(self.quick if quick else ())]

    def judge(self, runs: Runs) -> dict[str, Judged]:
        """Measure every claim and compare it with what its source says."""
        found = {}
        for name, claim in claims_of(self.module).items():
            finding = claim.measure(runs)
            found[name] = Judged(claim, finding, claim.judge(finding))
        return found


def overall(judged: Mapping[str, Judged]) -> Verdict:
    """The verdict on all claims together: the worst of them."""
    return min((j.verdict for j in judged.values()), key=WORST.index)


def names() -> list[str]:
    """The reproductions there are."""
    return sorted(module.name for module in pkgutil.iter_modules(reproductions.__path__))


def load(name: str) -> Reproduction:
    """A reproduction by its name.

    Raises:
        ConfigError: there is none; the message has the nearest name.
    """
    if name not in names():
        raise ConfigError(f"there is no reproduction '{name}'; {suggest(name, names())}")
    return Reproduction(name, import_module(f"{reproductions.__name__}.{name}"))


def record(judged: Mapping[str, Judged], folder: Path) -> None:
    """Write ``verdict.json``: for each claim the source's range, the finding, and the verdict."""
    rows = {
        name: {
            "says": j.claim.says,
            "source": j.claim.source,
            "range": j.claim.range,
            "tolerance": j.claim.why,
            "finding": j.finding._asdict(),
            "verdict": j.verdict,
        }
        for name, j in judged.items()
    }
    text = json.dumps({"verdict": overall(judged), "claims": rows}, indent=2, ensure_ascii=False)
    write_atomic(folder / "verdict.json", text + "\n")
