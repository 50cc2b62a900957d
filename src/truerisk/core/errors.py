"""Errors written for the person who reads them."""

from __future__ import annotations

import difflib
import inspect
import itertools
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import argparse

MOST = 50
"""Names that a hint lists."""
REPEATS = 3
"""How often a line of a traceback is shown that calls itself, as in Python's own."""
ENDS = 8
"""Lines of a long traceback that are shown of its beginning, and of its end."""
EXIT_HOOK = "/wandb/sdk/lib/exit_hooks.py"
"""What stands before ``sys.exit()`` once a run has been logged to W&B in this process."""

FAULTS = (Exception, SystemExit)
"""What code of somebody's own may raise: it may call ``sys.exit()``, too."""


class UserError(Exception):
    """A mistake in the request: shown as one message, without a traceback."""


class ConfigError(UserError):
    """The configuration asks for something that does not exist or cannot work."""


class ProcessLost(Exception):
    """Another process of the run has failed or was killed: shown without a traceback."""


class Diverged(Exception):
    """A loss, gradient or weight is no longer finite."""

    def __init__(self, step: int, what: str, fault: str = "is not finite") -> None:
        super().__init__(f"step {step}: {what} {fault}")
        self.step, self.what, self.fault = step, what, fault


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM or Ctrl-C) and has saved itself."""


def suggest(word: str, options: Iterable[str]) -> str:
    """Suggest the option closest in spelling, or list a few of them.

    Args:
        word: what was written.
        options: what there is.

    Returns:
        The hint, as a clause for an error message.

    >>> suggest("mometum", ["lr", "momentum"])
    "did you mean 'momentum'?"
    >>> suggest("zzz", ["lr", "momentum"])
    'known: lr, momentum'
    """
    names = sorted(options)
    lower = {name.lower(): name for name in names}
    # as written first, then with case set aside
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    close += difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{lower.get(close[0], close[0])}'?"
    more = f", … ({len(names) - MOST} more)" if len(names) > MOST else ""
    return f"known: {', '.join(names[:MOST])}{more}" if names else "there is none"


def format_count(count: int, word: str) -> str:
    """Write a number of things.

    Args:
        count: how many.
        word: the singular; its plural ends in s.

    Returns:
        Number and word.

    >>> format_count(1, "seed"), format_count(3, "seed")
    ('1 seed', '3 seeds')
    """
    if count != 1:
        word += "s"
    return f"{count} {word}"


def refuse_arguments(parser: argparse.ArgumentParser, said: str) -> NoReturn:
    """Say in one line what is wrong with a command line, and which option is spelt like it.

    Args:
        parser: of the command.
        said: by `argparse`.

    Raises:
        UserError: always.
    """
    if match := re.match(r"unrecognized arguments: ([^\s=]+)", said):
        options = [name for action in parser._actions for name in action.option_strings]
        said = f"there is no option {match[1]}; {suggest(match[1], options)}"
    raise UserError(f"{parser.prog}: {said}")


def read_message(error: BaseException) -> str:
    """Return what an error says; its kind, where it says nothing or saying it fails."""
    with suppress(Exception):  # its class may be somebody's own, with a __str__ that is no better
        if said := str(error).strip():
            return said
    return type(error).__name__


def join_lines(error: BaseException) -> str:
    """Return all that an error of another library says, in one line.

    >>> join_lines(ValueError("no such thing\\nat line 3")), join_lines(KeyError())
    ('no such thing at line 3', 'KeyError')
    """
    return " ".join(read_message(error).split())


def first_line(error: BaseException) -> str:
    """Return what an error of another library says first, in one line.

    >>> first_line(ValueError("no such thing\\nat line 3")), first_line(KeyError())
    ('no such thing', 'KeyError')
    >>> first_line(ValueError("none works:\\n- gz: no such file\\n- xz: no such file"))
    'none works: gz: no such file'
    """
    first, *others = read_message(error).splitlines()
    if first.endswith(":"):  # it only leads to what follows
        first += " " + next((line.strip(" \t-") for line in others if line.strip()), "")
    return first.rstrip(": ")


def describe_error(error: BaseException | str) -> str:
    """Describe an error in one line, its kind first.

    >>> describe_error(ValueError("no such thing\\nat line 3")), describe_error(KeyError())
    ('ValueError: no such thing', 'KeyError')
    """
    if isinstance(error, str):
        return error.partition("\n")[0]
    return _put_kind_first(error, first_line(error))


def _put_kind_first(error: BaseException, said: str) -> str:
    kind = type(error).__name__
    if said == kind:
        return kind
    return f"{kind}: {said}"


def describe_fault(error: BaseException) -> str:
    """Describe an error of somebody's own code: its kind, all it says, and their lines below.

    Args:
        error: as it was caught; with ``HYDRA_FULL_ERROR=1`` all of its traceback is below.
    """
    if _wants_all():
        return f"{describe_error(error)}\n{_format_traceback(error)}"
    first, *said = read_message(error).splitlines()
    lines = [*shorten_lines(said), *shorten_lines(list_own_lines(error))]
    return "\n  ".join([_put_kind_first(error, first), *lines])


def describe_bug(error: BaseException) -> str:
    """Describe an error for the screen: by its author's lines, or else by the whole traceback.

    Args:
        error: as it was caught; with ``HYDRA_FULL_ERROR=1`` all of its traceback is shown.
    """
    if list_own_lines(error) and not _wants_all():
        return f"{describe_fault(error)}\n  (HYDRA_FULL_ERROR=1 shows the whole traceback)"
    return _format_traceback(error)


def _wants_all() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def _format_traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def shorten_lines(lines: Sequence[str]) -> list[str]:
    """Leave out what a recursion repeats a thousand times, in the words of Python's tracebacks.

    Args:
        lines: the outermost first.

    >>> shorten_lines(["a", *(["b"] * 5), "c"])
    ['a', 'b', 'b', 'b', '[Previous line repeated 2 more times]', 'c']
    """
    short: list[str] = []
    for line, group in itertools.groupby(lines):
        again = len(list(group))
        short += [line] * min(again, REPEATS)
        if again > REPEATS:
            short.append(f"[Previous line repeated {again - REPEATS} more times]")
    # functions that call each other in turn repeat no single line
    if len(short) > 2 * ENDS + 1:
        short[ENDS:-ENDS] = [f"[{len(short) - 2 * ENDS} more lines]"]
    return short


def list_own_lines(error: BaseException) -> list[str]:
    """List where an error went through code that is neither this package's nor installed."""
    frames = traceback.extract_tb(error.__traceback__)
    # an end that a handler asks for at a signal is no fault of the code that it came in at;
    # Python's own exit() stands in a file of its library, and wandb puts one before sys.exit
    asking = [frame for frame in frames if not _passes_exit_on(frame)]
    if isinstance(error, SystemExit) and not read_own_lines(asking[-1:]):
        return []
    return read_own_lines(frames)


def _passes_exit_on(frame: traceback.FrameSummary) -> bool:
    """Tell whether a frame ends Python for whoever called it."""
    return _is_standard(frame.filename) or frame.filename.endswith(EXIT_HOOK)


def _is_standard(file: str) -> bool:
    """Tell whether a file is of Python's own library."""
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return not installed and file.startswith((sysconfig.get_paths()["stdlib"], "<"))


def read_own_lines(frames: Iterable[traceback.FrameSummary]) -> list[str]:
    """List those of some frames whose code is neither this package's nor installed.

    Args:
        frames: the outermost first.
    """
    package = str(Path(__file__).parents[1])
    found = []
    for frame in frames:
        installed = {"site-packages", "dist-packages"} & set(Path(frame.filename).parts)
        if installed or _is_standard(frame.filename) or frame.filename.startswith(package):
            continue
        place = f"{_shorten_path(frame.filename)}, line {frame.lineno}"
        found.append(f"{place}, in {frame.name}: {frame.line}")
    return found


def _shorten_path(path: str) -> str:
    """Return a path from here on, unless that leads upwards."""
    relative = os.path.relpath(path)
    if relative.startswith(".."):
        return path
    return relative


def locate_code(code: Any) -> str:
    """Return a line that names the file and line of a class or function; empty if none is known.

    Args:
        code: a class or a function.
    """
    try:
        path, (_, number) = inspect.getsourcefile(code), inspect.getsourcelines(code)
    except (OSError, TypeError):  # made without a file
        return ""
    return f"\n  {_shorten_path(str(path))}, line {number}, {code.__qualname__}"
