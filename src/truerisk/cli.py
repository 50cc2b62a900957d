"""The command line: its commands, their arguments, and tab completion."""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.core.atomic_files import DAMAGED
from truerisk.core.errors import (
    FAULTS,
    ProcessLost,
    UserError,
    describe_bug,
    list_own_lines,
    refuse_arguments,
    suggest,
)

if TYPE_CHECKING:
    import argparse

FIRST_LINES = """\
truerisk finds out which training recipe lowers the risk on data it has not seen.

  truerisk train                          train one recipe; show train, validation and test risk
  truerisk train -m optimizer=sgd,adam    train every combination
  truerisk parts                          list what there is to choose from
  truerisk report FOLDER                  a page of what runs and sweeps show, and how surely
  truerisk reproduce all --quick          run published claims and say whether they hold

  truerisk --help                         all commands
"""
HELP = """\
truerisk finds out which training recipe lowers the risk on data it has not seen.

  truerisk train [OVERRIDE…]              train one recipe; show train, validation and test risk
  truerisk train -m optimizer=sgd,adam    train every combination
  truerisk plan OVERRIDE…                 the cells of such a sweep: done, to run, impossible; time
  truerisk train resume=FOLDER            go on with a run that was cut off
  truerisk reproduce NAME… | all          run published claims and say whether they hold
  truerisk parts [GROUP] [OPTION]         list what there is to choose from; an option's keys
  truerisk evaluate FOLDER [OVERRIDE…]    measure a finished run's best weights again
  truerisk predict FOLDER… [OVERRIDE…]    a table of predictions, of one run or the mean of several
  truerisk generate FOLDER [prompt=…]     a text that a language model continues
  truerisk wandb-sweep OVERRIDE…          the YAML of a sweep that W&B's agents run
  truerisk export FOLDER                  its model in a file: state_dict, torchscript, onnx, …
  truerisk report FOLDER…                 a page of what runs and sweeps show, and how surely
  truerisk draw FOLDER…                   the figures of runs, and of every run of a sweep

  truerisk train --help                   groups, keys and Hydra's options
  truerisk reproduce --list               the claims, and how long each takes
  truerisk --version

Tab completion in bash: eval "$(truerisk train -sc install=bash)"
"""
BAD_REQUEST = 2
"""Exit code of a mistake; a bug ends with 1, a diverged run with 3, a signal with 128 + it."""
OLD_GARBAGE_EVERY = 1000
"""Searches for young garbage to one for old."""


@cache
def search_less() -> None:
    """Have Python search seldom for garbage among what imports make, which is there to stay."""
    # again and again, as it does by itself, took a tenth of a short run, and a second at its end
    gc.set_threshold(*gc.get_threshold()[:2], OLD_GARBAGE_EVERY)
    atexit.register(gc.freeze)
    atexit.register(gc.collect)  # before it, once, for what a part of the user's does at its end


def run_train(args: Sequence[str]) -> int:
    """Run ``truerisk train``: a Hydra app."""
    from truerisk.launch import launch_training

    return launch_training(read_agent_arguments(args))


OWN_OPTIONS = frozenset(
    {"config-dir", "config-name", "config-path", "cfg", "info", "package", "shell-completion"}
    | {"experimental-rerun"}
)
"""Hydra's options that may be written with a value."""


def read_agent_arguments(args: Sequence[str]) -> list[str]:
    """Take ``--key=value``, as agents of W&B write it, for the override ``key=value``.

    >>> read_agent_arguments(["--optimizer.lr=0.1", "--config-dir=mine", "--resume=None", "-m"])
    ['optimizer.lr=0.1', '--config-dir=mine', 'resume=null', '-m']
    """
    read = []
    for arg in args:
        match = re.fullmatch(r"--([\w./@]+(?:-\w+)*)=(.*)", arg, re.S)
        # no key of a run has a hyphen: a misspelt option is told of as one
        if match is None or match[1] in OWN_OPTIONS or re.fullmatch(r"\w+-[\w-]+", match[1]):
            read.append(arg)
        else:
            # Python's word for what YAML calls null
            read.append(f"{match[1]}={'null' if match[2] == 'None' else match[2]}")
    return read


def run_wandb_sweep(args: Sequence[str]) -> int:
    """Run ``truerisk wandb-sweep OVERRIDE…``."""
    from pathlib import Path

    parser = _make_parser(
        "wandb-sweep",
        "Write the YAML of a sweep whose points W&B chooses and its agents run.",
        epilog="truerisk wandb-sweep model=cnn1d 'optimizer.lr=tag(log,interval(1e-4,1e-1))' "
        "--out sweep.yaml; then wandb sweep sweep.yaml",
    )
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as of truerisk train -m")
    parser.add_argument("--method", help="bayes, grid or random; default: as the axes allow")
    parser.add_argument("--metric", default="risk/val", help="what is optimized; default: risk/val")
    parser.add_argument("--maximize", action="store_true", help="the metric is better when larger")
    _add_out(parser, "FILE", "default: it is printed")
    _add_config_dir(parser)
    given = parser.parse_intermixed_args(args)
    from truerisk.sweeps.wandb_sweep import write_sweep

    goal = "maximize" if given.maximize else "minimize"
    text = write_sweep(given.overrides, given.method, given.metric, goal, given.config_dir)
    if given.out is None:
        print(text, end="")
        return 0
    try:
        Path(given.out).write_text(text)
    except OSError as error:
        raise UserError(f"--out {given.out}: {error.strerror}") from None
    print(f"{given.out}; start it with: wandb sweep {given.out}")
    return 0


def run_plan(args: Sequence[str]) -> int:
    """Run ``truerisk plan``: the cells of a sweep, before it starts."""
    from truerisk.launch import launch_plan

    return launch_plan(args)


def run_parts(args: Sequence[str]) -> int:
    """Run ``truerisk parts [GROUP [OPTION]]``."""
    from truerisk.config.parts import format_listing, show_option

    parser = _make_parser("parts", "List the options of config groups; the keys of one option.")
    parser.add_argument("group", nargs="?", help="such as optimizer")
    parser.add_argument("option", nargs="?", help="such as adam: prints its YAML, with comments")
    _add_config_dir(parser)
    given = parser.parse_args(args)
    if given.option is None:
        print(format_listing(given.group, given.config_dir))
    else:
        print(show_option(given.group, given.option, given.config_dir))
    return 0


def run_evaluate(args: Sequence[str]) -> int:
    """Run ``truerisk evaluate FOLDER [OVERRIDE…]``."""
    from truerisk.config.parts import existing_folder

    parser = _make_parser("evaluate", "Risks of a finished run's best weights.")
    parser.add_argument("folder", help="a run folder")
    # a default, as argparse would list what may be left out among what is required
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        help="of data, trainer and risk: data.source.path=new.csv data.test=all",
    )
    _add_config_dir(parser)
    given = parser.parse_intermixed_args(args)
    _check_groups("an evaluation", given.overrides, ("data", "trainer", "risk"))
    folder = existing_folder(given.folder, "evaluate")
    from truerisk.evaluate import evaluate  # torch: not before the arguments are right

    evaluate(folder, given.overrides, given.config_dir).report()
    return 0


def _check_groups(what: str, overrides: Sequence[str], groups: Sequence[str]) -> None:
    """Refuse overrides of what a finished run decides by itself."""
    for override in overrides:
        if override.partition("=")[0].lstrip("+~").partition(".")[0] not in groups:
            raise UserError(
                f"{override}: {what} takes overrides of {', '.join(groups[:-1])} and "
                f"{groups[-1]} only; the rest is the run's own"
            )


def run_predict(args: Sequence[str]) -> int:
    """Run ``truerisk predict FOLDER… [OVERRIDE…]``."""
    from truerisk.config.parts import existing_folder

    parser = _make_parser(
        "predict",
        "A table of predictions with a run's best weights: row, target, prediction, probabilities "
        "and loss. Of several runs it is the mean of their probabilities.",
        epilog="data.source.path=new.csv predicts all rows of another file, with targets or "
        "without; data.source.id=COLUMN puts a column beside the row's number.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders; then KEY=VALUE")
    _add_out(parser, "FILE", "a .csv or .parquet; default: predictions.csv")
    parser.add_argument(
        "--split", help="train, val, test (default) or all of the run's own samples"
    )
    parser.add_argument(
        "--temperature", action="store_true", help="calibrate on validation samples"
    )
    _add_config_dir(parser)
    given = parser.parse_intermixed_args(args)
    overrides = [text for text in given.folders if "=" in text and not os.path.isdir(text)]
    _check_groups("a prediction", overrides, ("data", "trainer"))
    folders = [text for text in given.folders if text not in overrides]
    if not folders:
        raise UserError("predict: name the folder of a run")
    folders = [str(existing_folder(folder, "predict")) for folder in folders]
    out = given.out or "predictions.csv"
    if given.out is None and os.path.exists(out):
        raise UserError(f"predict: there is a {out} already; name a file with --out")
    from truerisk.predict import predict_command  # torch: not before the arguments are right

    options = {"split": given.split, "temperature": given.temperature}
    predict_command(folders, overrides, out, {**options, "config_dir": given.config_dir})
    return 0


def run_generate(args: Sequence[str]) -> int:
    """Run ``truerisk generate FOLDER [KEY=VALUE…]``."""
    from truerisk.config.parts import existing_folder

    parser = _make_parser(
        "generate",
        "A text that a run on data=text continues, token by token, with its best weights.",
        epilog="Keys: prompt='how it begins', tokens=300 at most, temperature=1.0 (0: the most "
        "likely token each time), top_k=null (so many of the most likely tokens), seed=0.",
    )
    parser.add_argument("folder", help="a run folder")
    parser.add_argument("options", nargs="*", default=[], metavar="KEY=VALUE", help="see below")
    given = parser.parse_args(args)
    folder = existing_folder(given.folder, "generate")
    from truerisk.generate import iterate_texts, read_options  # torch: as above

    options = read_options(given.options)
    texts = iterate_texts(folder, **options)
    # what is wrong with the folder or a number is told before anything is printed
    print(options["prompt"] + next(texts, ""), end="", flush=True)
    for text in texts:
        print(text, end="", flush=True)
    print()
    return 0


EXPORTS = ("state_dict", "safetensors", "torchscript", "torch_export", "onnx")


def run_export(args: Sequence[str]) -> int:
    """Run ``truerisk export FOLDER``."""
    from truerisk.config.parts import existing_folder

    parser = _make_parser(
        "export",
        "A run's best weights with its fitted standardization and class names in one file, which "
        "takes raw inputs and is checked against the run's own model.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a run folder")
    parser.add_argument(
        "--format", choices=EXPORTS, default="state_dict", help="default: state_dict"
    )
    _add_out(parser, "FILE", "default: FOLDER/model with the right ending")
    given = parser.parse_args(args)
    folder = existing_folder(given.folder, "export")
    from truerisk.export import export_run  # torch: not before the arguments are right

    path, difference = export_run(folder, given.format, given.out)
    print(f"{path}  (outputs differ from the model's by {difference:.1g} of the largest)")
    return 0


def run_report(args: Sequence[str]) -> int:
    """Run ``truerisk report FOLDER…``."""
    parser = _make_parser("report", "A page, tables and figures of every run below folders.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of sweeps or runs")
    _add_out(parser, "DIR", "default: FOLDER/report; ./report for several")
    parser.add_argument("--baseline", metavar="RECIPE", help="compare every recipe with this one")
    parser.add_argument("--target", type=float, help="validation risk for the steps to a target")
    if "--target" in args[:-1]:  # a risk may lie below zero, and argparse takes -1e-3 for an option
        at = args.index("--target")
        args = [*args[:at], f"--target={args[at + 1]}", *args[at + 2 :]]
    given = parser.parse_args(args)
    from truerisk.reports.study_report import print_summary, write_report

    written = write_report(given.folders, given.out, baseline=given.baseline, target=given.target)
    print_summary(written)
    return BAD_REQUEST if written.study.unreadable else 0


def run_draw(args: Sequence[str]) -> int:
    """Run ``truerisk draw FOLDER…``; fails where the figures of a run could not be drawn."""
    from truerisk.config.parts import existing_folder

    parser = _make_parser("draw", "Draw the figures of every run below folders, again or late.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of sweeps or runs")
    given = parser.parse_args(args)
    folders = [existing_folder(folder, "draw") for folder in given.folders]
    from truerisk.launch import draw_figures

    return BAD_REQUEST if draw_figures(folders) else 0


def run_reproduce(args: Sequence[str]) -> int:
    """Run ``truerisk reproduce NAME… | all [OVERRIDE…]``."""
    from truerisk.verdicts.reproduce import describe_reproductions, reproduce_claims

    parser = _make_parser(
        "reproduce",
        "Run published claims and say whether they hold; exit code 1 if one does not.",
        epilog="KEY=VALUE changes the studies: hydra.launcher.processes=1 leaves them one core.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all: every one of them")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smaller studies, which say what they leave undecided",
    )
    parser.add_argument("--list", action="store_true", help="list them, and how long each takes")
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


def _make_parser(command: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    # argparse is imported late: `truerisk train` has no use for it before Hydra has
    import argparse

    parser: Any = argparse.ArgumentParser(
        f"truerisk {command}", description=description, epilog=epilog
    )
    parser.error = partial(refuse_arguments, parser)
    return parser


def _add_config_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with options of yours")


def _add_out(parser: argparse.ArgumentParser, what: str, help: str) -> None:
    parser.add_argument("--out", metavar=what, help=help, type=_read_out)


def _read_out(path: str) -> str:
    if not path.strip():
        raise UserError("--out is empty: name where to write, or leave it out")
    return path


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": run_train,
    "plan": run_plan,
    "reproduce": run_reproduce,
    "parts": run_parts,
    "evaluate": run_evaluate,
    "predict": run_predict,
    "generate": run_generate,
    "export": run_export,
    "wandb-sweep": run_wandb_sweep,
    "report": run_report,
    "draw": run_draw,
}


def complete_line(args: Sequence[str]) -> int:
    """Answer ``truerisk -sc query=bash``; the line so far is in ``COMP_LINE``.

    Hydra completes overrides; what is ours is to take the command off the line first.
    """
    line = os.environ.get("COMP_LINE", "")
    typed = re.fullmatch(r"\s*\S+\s+(\S+)\s+(.*)", line, re.S)
    if not any(arg.startswith("query=") for arg in args):
        _complete_overrides(args)
    elif typed is None:
        print(" ".join(COMMANDS))
    elif typed[1] in ("train", "plan") and typed[2].split(" ")[-1].startswith("~"):
        from truerisk.config.compose import list_removable

        # Hydra would offer all groups, most of which every run has
        print(" ".join(k for k in list_removable() if k.startswith(typed[2].split(" ")[-1])))
    elif typed[1] in ("train", "plan"):
        os.environ["COMP_LINE"] = f"truerisk {typed[2]}"
        folder = re.search(r"(?:--config-dir|-cd)[ =](\S+)", typed[2])
        _complete_overrides([*args, "--config-dir", folder[1]] if folder else args)
    elif typed[1] == "parts":
        from truerisk.config.parts import list_groups, option_folders

        print(" ".join(list_groups(option_folders())))
    elif typed[1] == "reproduce":
        from truerisk.verdicts.reproduction import reproduction_names

        print(" ".join(["all", *reproduction_names(), "--quick", "--list"]))
    return 0


def _complete_overrides(args: Sequence[str]) -> None:
    try:
        run_train(args)
    except UserError:  # what cannot be composed has none; a message would garble the prompt
        return


def dispatch(args: Sequence[str]) -> int:
    """Run one command; returns the exit code.

    Raises:
        UserError: there is no such command, or it was asked for what cannot be.
    """
    if not args:
        print(FIRST_LINES, end="")
        return BAD_REQUEST
    if args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if args[0] == "--version":
        from truerisk import __version__

        print(f"truerisk {__version__}")
        return 0
    if args[0] in ("-sc", "--shell-completion"):
        return complete_line(args)
    if args[0] not in COMMANDS:
        raise UserError(f"there is no command '{args[0]}'; {suggest(args[0], COMMANDS)}")
    return COMMANDS[args[0]](args[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script; returns the exit code."""
    search_less()
    # last, so that nothing installed is hidden by a file that happens to bear its name
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    DAMAGED.clear()
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
        # told where it was met, and mended where it could be
        return code or (BAD_REQUEST if DAMAGED else 0)
    except UserError as error:
        if _speaks(sys.argv[1:] if argv is None else argv):
            print(f"error: {error}", file=sys.stderr)
        return BAD_REQUEST
    except ProcessLost as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except FAULTS as error:
        if not list_own_lines(error):
            raise
        print(f"error: {describe_bug(error)}", file=sys.stderr)
        return 1


def _speaks(args: Sequence[str]) -> bool:
    """Tell whether this process, of those that were started together, tells of a mistake of all."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank = os.environ["RANK"]
    # tasks of SLURM's that do not share a run may each have made their own
    elif any(re.match(r"trainer(=(ddp|fsdp)|\.(strategy|num_nodes)=)", arg) for arg in args):
        rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0"))
    return rank == "0"
