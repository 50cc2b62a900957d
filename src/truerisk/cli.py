"""The command line: ``truerisk train | plan | reproduce | parts | evaluate | report``."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

from truerisk.core.errors import UserError, suggest

HELP = """\
truerisk finds out which training recipe lowers the risk on data it has not seen.

  truerisk train [OVERRIDE…]              train one recipe; show train, validation and test risk
  truerisk train -m optimizer=sgd,adam    train every combination
  truerisk plan OVERRIDE…                 the cells of such a sweep: done, to run, impossible; time
  truerisk train resume=FOLDER            go on with a run that was cut off
  truerisk reproduce NAME… | all          run published claims and say whether they hold
  truerisk parts [GROUP]                  list what there is to choose from
  truerisk evaluate FOLDER [OVERRIDE…]    measure a finished run's best weights again
  truerisk report FOLDER…                 a page of what runs and sweeps show, and how surely

  truerisk train --help                   groups, keys and Hydra's options
  truerisk reproduce --list               the claims, with their source and cost
  truerisk --version

Tab completion in bash: eval "$(truerisk train -sc install=bash)"
"""
BAD_REQUEST = 2
"""Exit code of a mistake; a bug ends with 1, a diverged run with 3, a signal with 128 + it."""
RARELY = 1000
"""Searches for young garbage to one for old."""


def train(args: Sequence[str]) -> int:
    """``truerisk train``: a Hydra app."""
    from truerisk.launch import launch_training

    return launch_training(args)


def plan(args: Sequence[str]) -> int:
    """``truerisk plan``: the cells of a sweep, before it starts."""
    from truerisk.launch import launch_plan as show

    return show(args)


def parts(args: Sequence[str]) -> int:
    """``truerisk parts [GROUP]``."""
    import argparse

    from truerisk.config.parts import format_listing

    parser = argparse.ArgumentParser(
        "truerisk parts", description="List the options of every config group, or of one."
    )
    parser.add_argument("group", nargs="?", help="such as optimizer")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with options of yours")
    given = parser.parse_args(args)
    print(format_listing(given.group, given.config_dir))
    return 0


def evaluate(args: Sequence[str]) -> int:
    """``truerisk evaluate FOLDER [OVERRIDE…]``."""
    import argparse

    from truerisk.config.parts import existing_folder

    parser = argparse.ArgumentParser(
        "truerisk evaluate", description="Risks of a finished run's best weights."
    )
    parser.add_argument("folder", help="a run folder")
    parser.add_argument("overrides", nargs="*", help="of data, trainer and risk: data.path=new.csv")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with options of yours")
    given = parser.parse_intermixed_args(args)
    overrides = allowed(given.overrides)
    folder = existing_folder(given.folder, "evaluate")
    from truerisk.evaluate import evaluate as measure

    measure(folder, overrides, given.config_dir).report()
    return 0


def report(args: Sequence[str]) -> int:
    """``truerisk report FOLDER…``."""
    import argparse

    parser = argparse.ArgumentParser(
        "truerisk report", description="A page, tables and figures of every run below folders."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of sweeps or runs")
    parser.add_argument("--out", metavar="DIR", help="default: FOLDER/report; ./report for several")
    parser.add_argument("--baseline", metavar="RECIPE", help="compare every recipe with this one")
    parser.add_argument("--target", type=float, help="validation risk for the steps to a target")
    given = parser.parse_args(args)
    from truerisk.reports.study_report import print_summary, write_report

    written = write_report(given.folders, given.out, baseline=given.baseline, target=given.target)
    print_summary(written)
    return 0


def reproduce(args: Sequence[str]) -> int:
    """``truerisk reproduce NAME… | all [OVERRIDE…]``."""
    import argparse

    from truerisk.verdicts.reproduce import describe_reproductions, reproduce_claims

    parser = argparse.ArgumentParser(
        "truerisk reproduce",
        description="Run published claims and say whether they hold; exit code 1 if one does not.",
        epilog="KEY=VALUE changes the studies, as in hydra/launcher=vectorized.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all: every one of them")
    parser.add_argument("--quick", action="store_true", help="smaller studies, same verdicts")
    parser.add_argument("--list", action="store_true", help="list them with their source and cost")
    given = parser.parse_intermixed_args(args)
    overrides = [arg for arg in given.names if "=" in arg]
    chosen = [arg for arg in given.names if "=" not in arg]
    if given.list:
        print(describe_reproductions())
        return 0
    if not chosen:
        parser.print_help()
        return BAD_REQUEST
    return reproduce_claims(chosen, given.quick, overrides)


def allowed(overrides: Sequence[str]) -> list[str]:
    """The overrides, if each is of a group that an evaluation may change."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] not in ("data", "trainer", "risk"):
            raise UserError(
                f"{override}: an evaluation takes overrides of data, trainer and risk only; "
                "the rest is the run's own"
            )
    return list(overrides)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "plan": plan,
    "reproduce": reproduce,
    "parts": parts,
    "evaluate": evaluate,
    "report": report,
}


def dispatch(args: Sequence[str]) -> int:
    """Run one command."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if args else BAD_REQUEST
    if args[0] == "--version":
        print(f"truerisk {_version()}")
        return 0
    if args[0] in ("-sc", "--shell-completion"):
        from truerisk.completion import complete_line

        return complete_line(args)
    if args[0] not in COMMANDS:
        raise UserError(f"there is no command '{args[0]}'; {suggest(args[0], COMMANDS)}")
    return COMMANDS[args[0]](args[1:])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("truerisk")
    except PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    # what imports make stays; searching it for garbage again and again took a tenth of a short run
    gc.set_threshold(*gc.get_threshold()[:2], RARELY)
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_REQUEST
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
