"""``truerisk reproduce``: run a study, judge its claims, draw and tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from truerisk.core.errors import UserError
from truerisk.verdicts import gallery
from truerisk.verdicts.drawing import draw
from truerisk.verdicts.reproduction import Judged, Reproduction, load, names, overall, record
from truerisk.verdicts.runs import Runs

OUTPUTS = Path("outputs")
MARKS = {"holds": "[green]holds[/]", "does not hold": "[bold red]does not hold[/]"}


def reproduce(which: Sequence[str], quick: bool, overrides: Sequence[str] = ()) -> int:
    """Run reproductions and print their verdicts; 1 if a claim does not hold.

    Raises:
        UserError: there is no such reproduction, or a study could not be run.
    """
    chosen = [load(name) for name in (names() if list(which) == ["all"] else which)]
    verdicts = [_one(reproduction, quick, overrides) for reproduction in chosen]
    page = gallery.write(names(), OUTPUTS)
    print(f"gallery  {page.absolute()}")
    return 1 if "does not hold" in verdicts else 0


def _one(reproduction: Reproduction, quick: bool, overrides: Sequence[str]) -> str:
    from truerisk.launch import launch_training

    folder, given = (
        OUTPUTS / reproduction.study(quick),
        [*reproduction.overrides(quick), *overrides],
    )
    code = launch_training(["--multirun", *given, "report=false"])
    if not folder.is_dir():
        raise UserError(f"{reproduction.name}: the study ended with exit code {code}; see above")
    return judge(reproduction, Runs.at(cells(given)), folder)


def cells(overrides: Sequence[str]) -> list[Path]:
    """The folders of a study's runs; runs of an earlier version of it may lie beside them."""
    from hydra.types import RunMode

    from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
    from truerisk.config.parts import PRIMARY
    from truerisk.sweeps.sweep import Sweep

    given = expand_short_forms(overrides)
    with hydra_session():
        loader = ConfigLoader()
        shared = loader.load_configuration(PRIMARY, given, RunMode.MULTIRUN)
        sweep = Sweep(loader, PRIMARY, given, shared)
        return [cell.folder for cell in sweep.study.compose_cells(next(sweep.propose_batches()))]


def judge(reproduction: Reproduction, runs: Runs, folder: Path) -> str:
    """Judge the runs of a study, write its verdict and figure, and print both."""
    judged = reproduction.judge(runs)
    record(judged, folder)
    written = draw(lambda figure: reproduction.module.draw(runs, figure), folder)
    tell(reproduction, judged)
    print(f"figure   {written[1].absolute()}")
    return overall(judged)


def tell(reproduction: Reproduction, judged: Mapping[str, Judged]) -> None:
    """Print the claims, what was measured for each, and the verdicts."""
    from rich.console import Console
    from rich.table import Table, box

    table = Table(title=f"{reproduction.name}: {reproduction.sentence}", box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    for heading in ("claim", "source says", "measured [95 %]", "verdict"):
        table.add_column(heading, overflow="fold")
    for j in judged.values():
        mark = MARKS.get(j.verdict, j.verdict)
        table.add_row(j.claim.says, j.claim.range, str(j.finding), mark)
    Console(highlight=False).print(table)


def listing() -> str:
    """Every reproduction with its source and what it costs on one core."""
    rows = [load(name) for name in names()]
    return "\n".join(f"{r.name}\n  {r.sentence}\n  {r.source}\n  {r.cost}" for r in rows)
