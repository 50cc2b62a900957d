"""``truerisk reproduce``: run a study, judge its claims, draw its figure, print the verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import median

from truerisk.core.errors import UserError, describe_error
from truerisk.outcome import Outcome
from truerisk.verdicts.gallery import save_themes, write_gallery
from truerisk.verdicts.reproduction import (
    JudgedClaim,
    Reproduction,
    load_reproduction,
    overall_verdict,
    read_verdict,
    reproduction_names,
    sort_by_topic,
    write_verdict,
)
from truerisk.verdicts.runs import Runs

OUTPUTS = Path("outputs")
LAUNCHER = ("hydra/launcher", "hydra.launcher")
MARKS = {"holds": "[green]holds[/]", "does not hold": "[bold red]does not hold[/]"}


def reproduce_claims(which: Sequence[str], quick: bool, overrides: Sequence[str] = ()) -> int:
    """Run reproductions, print their verdicts, and write the gallery.

    A study takes all cores, unless it is a quick one, or its launcher is among the overrides.

    Args:
        which: names of reproductions, or ``["all"]``.
        quick: run the smaller studies.
        overrides: changes to each study, as on the command line.

    Returns:
        The exit code: 1 if a claim does not hold.

    Raises:
        UserError: there is no such reproduction, or a study could not be run.
    """
    names = reproduction_names()
    every = (names if name == "all" else [name] for name in which)
    chosen = [load_reproduction(name) for name in dict.fromkeys(chain.from_iterable(every))]
    verdicts = [_reproduce_one(reproduction, quick, overrides) for reproduction in chosen]
    page = write_gallery(names, OUTPUTS)
    print(f"gallery  {page.absolute()}")
    # inconclusive is not wrong: a quick study has too few seeds for some claims, or none
    return int("does not hold" in verdicts)


def _reproduce_one(reproduction: Reproduction, quick: bool, overrides: Sequence[str]) -> str:
    from truerisk.core.threads import count_cores
    from truerisk.launch import launch_training

    folder = OUTPUTS / reproduction.study_name(quick)
    arguments = [*reproduction.study_overrides(quick), *overrides]
    if not quick and not any(given.startswith(LAUNCHER) for given in overrides):
        arguments.append(f"hydra.launcher.processes={count_cores()}")
    begun, earlier = time.monotonic(), read_verdict(folder) or {}
    # the rest of a study that was cut off is not its time, nor is another study's
    is_whole = not folder.is_dir() and all(given.startswith("hydra") for given in overrides)
    # the reproduction has a page of its own
    ended: list[Outcome] = []
    code = launch_training(["--multirun", *arguments, "report=false"], ended)
    # a study with failed cells is judged by the others; one that was refused has no folder
    if not folder.is_dir():
        raise UserError(f"{reproduction.name}: the study ended with exit code {code}; see above")
    seconds = earlier.get("seconds")
    if is_whole:
        seconds = round(time.monotonic() - begun, 1)
    # not what lies in the study's folder: runs of an earlier version of it may lie beside them
    runs = Runs.in_folders([outcome.folder for outcome in ended if outcome.folder is not None])
    try:
        return judge_study(reproduction, runs, folder, quick, seconds)
    except (ArithmeticError, LookupError, ValueError) as error:
        if not overrides:
            raise
        raise UserError(
            f"{reproduction.name}: {' '.join(overrides)} changed what its claims are measured on "
            f"({describe_error(error)})"
        ) from error


def judge_study(
    reproduction: Reproduction,
    runs: Runs,
    folder: Path,
    quick: bool = False,
    seconds: float | None = None,
) -> str:
    """Judge the runs of a study, write its verdict and figure, and print both.

    Args:
        reproduction: whose study it is.
        runs: the study's.
        folder: the study's.
        quick: whether it is the smaller study.
        seconds: how long its runs took, where they were timed.

    Returns:
        The verdict on all claims together.
    """
    judged = reproduction.judge_claims(runs, quick)
    write_verdict(judged, folder, seconds)
    written = save_themes(lambda figure: reproduction.draw_figure(runs, figure), folder)
    print_verdicts(reproduction, judged)
    print(f"figure   {written[1].absolute()}")
    return overall_verdict(judged)


def print_verdicts(reproduction: Reproduction, judged: Mapping[str, JudgedClaim]) -> None:
    """Print the claims, what was measured for each, and the verdicts.

    Args:
        reproduction: for the title.
        judged: its claims by name.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table, box

    table = Table(title=f"{reproduction.name}: {reproduction.sentence}", box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    for heading in ("claim", "source says", "measured [95 %]", "verdict"):
        table.add_column(heading, overflow="fold")
    for claim, finding, verdict in judged.values():
        mark = MARKS.get(verdict, verdict)
        measured = str(finding)
        if verdict == "not run with --quick":
            measured = "–"
        # E[x] would lose its brackets, which mark colours
        table.add_row(escape(claim.says), claim.range_in_words, measured, mark)
    Console(highlight=False).print(table)


def describe_reproductions(outputs: Path = OUTPUTS) -> str:
    """Describe every reproduction, topic by topic, with its source and how long it takes.

    Args:
        outputs: the folder with studies. Once one of them has been timed, so that the machine's
            speed is known, the others' costs are told for it too.
    """
    loaded = sort_by_topic(reproduction_names())
    timed = {}
    for reproduction in loaded:
        if seconds := (read_verdict(outputs / reproduction.name) or {}).get("seconds"):
            timed[reproduction.name] = seconds
    # the machine's speed: the median, as a study may have waited for something else that ran
    ratios = [timed[r.name] / r.cost_seconds for r in loaded if r.name in timed]
    lines, topic = [], ""
    for reproduction in loaded:
        if reproduction.topic != topic:
            topic = reproduction.topic
            lines.append(topic)
        cost = reproduction.cost
        if reproduction.name in timed:
            cost += f"; took {_in_words(timed[reproduction.name])} here"
        elif ratios:
            cost += f"; about {_in_words(reproduction.cost_seconds * median(ratios))} here"
        told = (reproduction.sentence, reproduction.source, cost)
        lines += [f"  {reproduction.name}", *(f"    {text}" for text in told)]
    return "\n".join(lines)


def _in_words(seconds: float) -> str:
    """Write a duration in seconds or minutes, to two digits.

    >>> _in_words(7.2), _in_words(154)
    ('7 s', '2.6 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min"
