"""Tab completion: Hydra's, with the subcommand taken off the command line first."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from truerisk.core.errors import UserError

COMMANDS = ("train", "plan", "reproduce", "parts", "evaluate", "report")


def complete_line(args: Sequence[str]) -> int:
    """Answer ``truerisk -sc query=bash``; the line so far is in ``COMP_LINE``."""
    line = os.environ.get("COMP_LINE", "")
    typed = re.fullmatch(r"\s*\S+\s+(\S+)\s+(.*)", line, re.S)
    if not any(arg.startswith("query=") for arg in args):
        _train(args)
    elif typed is None:
        print(" ".join(COMMANDS))
    elif typed[1] in ("train", "plan"):
        os.environ["COMP_LINE"] = f"truerisk {typed[2]}"
        _train([*args, *_config_dir(typed[2])])
    elif typed[1] == "parts":
        from truerisk.config.parts import list_groups, option_folders

        print(" ".join(list_groups(option_folders())))
    elif typed[1] == "reproduce":
        from truerisk.verdicts.reproduction import reproduction_names

        print(" ".join(["all", *reproduction_names(), "--quick", "--list"]))
    return 0


def _train(args: Sequence[str]) -> None:
    """What cannot be composed has no completions; a message would garble the prompt."""
    from truerisk.launch import launch_training

    try:
        launch_training(args)
    except UserError:
        return


def _config_dir(line: str) -> list[str]:
    found = re.search(r"(?:--config-dir|-cd)[ =](\S+)", line)
    return ["--config-dir", found[1]] if found else []
