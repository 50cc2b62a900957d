"""A reproduction: a study, the claims about it, and its figure."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truerisk import reproductions
from truerisk.core.atomic_files import write_atomic
from truerisk.core.errors import ConfigError, suggest
from truerisk.verdicts.claim import Claim, Finding, Verdict, list_claims
from truerisk.verdicts.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST_FIRST: tuple[Verdict, ...] = (
    *("does not hold", "inconclusive", "holds"),
    "not run with --quick",
)
"""Verdicts, in the order in which one decides for all."""
TOPICS = (
    "Risk and generalization",
    "Descent",
    "Depth, recurrence and initialization",
    "Numbers",
)
"""What a reproduction may name as its ``TOPIC``, in the gallery's order."""
UNITS = {"s": 1.0, "min": 60.0}


class JudgedClaim(NamedTuple):
    """One claim, what was measured for it, and what follows."""

    claim: Claim
    finding: Finding
    verdict: Verdict


@dataclass(frozen=True)
class Reproduction:
    """What ``conf/experiment/NAME.yaml`` and ``truerisk/reproductions/NAME.py`` say together.

    Args:
        name: of both files.
        sentence: the claim in a sentence: the first paragraph of the module's docstring.
        remarks: what more there is to know: the other paragraphs.
        formula: the module's ``FORMULA``.
        source: its ``SOURCE``.
        topic: its ``TOPIC``, one of ``TOPICS``.
        cost: its ``COST``: how long the study takes, such as ``20 s`` or ``3 min``.
        quick: its ``QUICK``: overrides that make the study smaller.
        claims: those that it defines, by name.
        draw_figure: its function of that name.
    """

    name: str
    sentence: str
    remarks: tuple[str, ...]
    formula: str
    source: str
    topic: str
    cost: str
    quick: tuple[str, ...]
    claims: dict[str, Claim]
    draw_figure: Callable[[Runs, Figure], None]

    @property
    def cost_seconds(self) -> float:
        """The cost as a number."""
        number, unit = self.cost.split()
        return float(number) * UNITS[unit]

    def study_name(self, quick: bool) -> str:
        """Name the study's folder below ``outputs/``."""
        if quick:
            return f"{self.name}-quick"
        return self.name

    def study_overrides(self, quick: bool) -> list[str]:
        """Write the command line of the study, after ``truerisk train --multirun``."""
        overrides = [f"experiment={self.name}", f"study={self.study_name(quick)}"]
        if quick:
            overrides += self.quick
        return overrides

    def judge_claims(self, runs: Runs, quick: bool = False) -> dict[str, JudgedClaim]:
        """Measure every claim and compare it with what its source says.

        Args:
            runs: the study's.
            quick: whether it is the smaller study, which leaves out the runs of some claims.
        """
        judged = {}
        for name, claim in self.claims.items():
            finding = claim.measure(runs)
            verdict = claim.judge_finding(finding)
            if quick and math.isnan(finding.value):
                verdict = "not run with --quick"
            judged[name] = JudgedClaim(claim, finding, verdict)
        return judged


def reproduction_names() -> list[str]:
    """List the reproductions there are."""
    return sorted(module.name for module in pkgutil.iter_modules(reproductions.__path__))


def load_reproduction(name: str) -> Reproduction:
    """Load a reproduction by its name.

    Raises:
        ConfigError: there is none; the message has the nearest name.
    """
    # asked before importing, so that a misspelt name is no ImportError
    names = reproduction_names()
    if name not in names:
        raise ConfigError(f"there is no reproduction '{name}'; {suggest(name, names)}")
    module: Any = import_module(f"{reproductions.__name__}.{name}")
    # one text for who reads the file and for who reads the page
    paragraphs = (inspect.getdoc(module) or "").split("\n\n")
    sentence, *remarks = (" ".join(text.split()) for text in paragraphs)
    return Reproduction(
        name=name,
        sentence=sentence,
        remarks=tuple(remarks),
        formula=module.FORMULA,
        source=module.SOURCE,
        topic=module.TOPIC,
        cost=module.COST,
        quick=tuple(module.QUICK),
        claims=list_claims(module),
        draw_figure=module.draw_figure,
    )


def sort_by_topic(names: Iterable[str]) -> list[Reproduction]:
    """Load reproductions in the order of the gallery: topic by topic, and by name within.

    Raises:
        ConfigError: there is no such reproduction.
    """
    loaded = map(load_reproduction, sorted(names))
    return sorted(loaded, key=lambda reproduction: TOPICS.index(reproduction.topic))


def write_grids(*grids: Mapping[str, Any]) -> str:
    """Write the override that has the sweeper ``grids`` run these grids, one after another.

    Args:
        grids: values by key. A list or a range has all its values combined with those of the other
            keys; anything else is one value.

    >>> write_grids({"optimizer": ["sgd", "adam"], "seed": range(2)}, {"data.batch_size": "full"})
    "hydra.sweeper.grids=[{optimizer:'sgd,adam',seed:'range(2)'},{data.batch_size:'full'}]"
    """
    written = []
    for grid in grids:
        # quoted, as Hydra's grammar ends a value at a comma or bracket
        axes = (f"{key}:'{_write_axis(value)}'" for key, value in grid.items())
        written.append("{" + ",".join(axes) + "}")
    return f"hydra.sweeper.grids=[{','.join(written)}]"


def _write_axis(value: Any) -> str:
    """Write one value, or several, in Hydra's grammar."""
    if isinstance(value, range):
        return str(value).replace("range(0, ", "range(").replace(" ", "")
    # Hydra spells them as JSON does
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return ",".join(map(_write_axis, value))
    return str(value)


def overall_verdict(judged: Mapping[str, JudgedClaim]) -> Verdict:
    """Return the verdict on all claims together: the worst of those that were measured."""
    return min((j.verdict for j in judged.values()), key=WORST_FIRST.index)


def encode_finding(finding: Finding) -> dict[str, float | str | None]:
    """Write a finding in what JSON has: null for nan, which it has not, and words for ±∞.

    >>> encode_finding(Finding(1.0, float("nan"), float("inf")))
    {'value': 1.0, 'low': None, 'high': 'inf'}
    """
    fields: dict[str, float | str | None] = {}
    for name, value in finding._asdict().items():
        fields[name] = float(value)
        if math.isnan(value):
            fields[name] = None
        elif math.isinf(value):
            fields[name] = str(float(value))
    return fields


def decode_finding(fields: Mapping[str, float | str | None]) -> Finding:
    """Read a finding as `encode_finding` writes it, or earlier versions did."""
    return Finding(**{k: math.nan if v is None else float(v) for k, v in fields.items()})


def read_verdict(folder: Path) -> dict[str, Any] | None:
    """Read what `write_verdict` left in a study's folder; None where nothing did."""
    record = folder / "verdict.json"
    if not record.exists():
        return None
    read: dict[str, Any] = json.loads(record.read_text())
    return read


def write_verdict(
    judged: Mapping[str, JudgedClaim], folder: Path, seconds: float | None = None
) -> None:
    """Write ``verdict.json``: for each claim the source's range, the finding, and the verdict.

    Args:
        judged: claims by name.
        folder: the study's.
        seconds: how long its runs took; None where they were not timed, as where they were cut off.
    """
    rows = {
        name: {
            "says": j.claim.says,
            "source": j.claim.source,
            "range": j.claim.range_in_words,
            "tolerance": j.claim.why,
            "finding": encode_finding(j.finding),
            "verdict": j.verdict,
        }
        for name, j in judged.items()
    }
    record = {"verdict": overall_verdict(judged), "seconds": seconds, "claims": rows}
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "verdict.json", text + "\n")
