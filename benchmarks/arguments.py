"""The command line of what runs several modules by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def read_arguments(
    program: str, about: str | None, known: Sequence[str], given: Sequence[str]
) -> tuple[Sequence[str], bool]:
    """Read names of modules, all that are known where none is given, and ``--quick``.

    Args:
        program: how it is called.
        about: for its help.
        known: names that there are.
        given: the arguments.
    """
    parser = argparse.ArgumentParser(program, description=about)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    read = parser.parse_args(given)
    unknown = set(read.names) - set(known)
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such name; there are {', '.join(known)}")
    return read.names or known, read.quick
