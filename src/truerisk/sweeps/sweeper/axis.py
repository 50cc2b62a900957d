"""Axes of a sweep: overrides with several values, intervals and distributions."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.overrides_parser import create_functions
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override

from truerisk.core.errors import ConfigError, read_message, suggest
from truerisk.sweeps.sweeper import CellOverrides

if TYPE_CHECKING:
    from numpy.random import Generator

DISTRIBUTION = "drawn"
"""Tag of an axis that is a call of a distribution, kept as text."""
CALL = re.compile(r"(\+{0,2}[\w./@]+)=([a-z_]\w*)\(([^'()]*)\)")
DIGITS = 6


class SweepAxes(NamedTuple):
    """The overrides of a sweep, by what is done with them.

    Attributes:
        order: the keys of all, in the order in which points name them.
        fixed: the values that all points have.
        crossed: the values of axes of which every combination is taken.
        searched: the axes from which a sweeper chooses.
    """

    order: list[str]
    fixed: dict[str, str]
    crossed: dict[str, list[str]]
    searched: dict[str, Override]

    def list_points(self, chosen: Mapping[str, str]) -> list[CellOverrides]:
        """List the points of one choice: one for each combination of the crossed values.

        Args:
            chosen: a value for each searched axis.
        """
        points = []
        for values in product(*self.crossed.values()):
            combination = dict(zip(self.crossed, values, strict=True))
            texts = {**self.fixed, **chosen, **combination}
            points.append([f"{key}={texts[key]}" for key in self.order])
        return points


def write_axes(axes: Mapping[str, Any]) -> list[str]:
    """Write axes of a YAML file as on the command line, where nothing is spelled null.

    >>> write_axes({"optimizer.lr": "0.1,1", "step.clip.norm": None})
    ['optimizer.lr=0.1,1', 'step.clip.norm=null']
    """
    texts = {key: str(value) for key, value in axes.items()}
    texts |= {key: "null" for key, value in axes.items() if value is None}
    return [f"{key}={text}" for key, text in texts.items()]


def split_axes(overrides: Sequence[Override], crossed: Collection[str]) -> SweepAxes:
    """Sort overrides by what is done with them.

    Args:
        overrides: parsed; a later one of the same key takes an earlier one's place.
        crossed: keys of the axes of which every combination is taken.

    Raises:
        ConfigError: there is no axis of a name in ``crossed``.
    """
    # a dict keeps the place of the first of a key, and the value of the last
    last = {override.get_key_element(): override for override in overrides}
    swept = {key: override for key, override in last.items() if override.is_sweep_override()}
    fixed = {k: o.get_value_element_as_str() for k, o in last.items() if k not in swept}
    names = {"seed.base" if name == "seed" else name for name in crossed}
    for name in names - {*swept, "seed.base"}:
        raise ConfigError(f"hydra.sweeper.crossed: {name} is no axis here; {suggest(name, swept)}")
    combined = {k: o for k, o in swept.items() if k in names and o.is_discrete_sweep()}
    searched = {key: override for key, override in swept.items() if key not in combined}
    return SweepAxes(list(last), fixed, {k: list_values(o) for k, o in combined.items()}, searched)


def list_values(override: Override) -> list[str]:
    """List what an axis goes through, as texts.

    Raises:
        ConfigError: it is an interval or a distribution, or has no values.
    """
    if override.is_discrete_sweep() and not _is_distribution(override):
        values = list(override.sweep_string_iterator())
        if not values:
            axis = re.sub(r"^(\+{0,2})seed\.base=", r"\1seed=", format_axis(override))
            raise ConfigError(f"{axis}: there is no value in it to run")
        return values
    remedy = (
        f"values are needed here, as in {override.key_or_group}=1,2,3; "
        "take hydra/sweeper=random or optuna to search an interval"
    )
    if _is_distribution(override):
        # Hydra's own functions, misspelt, look like distributions: rnage(3)
        name = _call_text(override).partition("(")[0]
        hint = suggest(name, create_functions().functions)
        if hint.startswith("did"):
            remedy = f"there is no {name}(…); {hint}"
    raise ConfigError(f"{format_axis(override)}: {remedy}")


def _is_distribution(override: Override) -> bool:
    return DISTRIBUTION in (getattr(override.value(), "tags", None) or ())


def format_axis(override: Override) -> str:
    """Write an axis as the user did."""
    if _is_distribution(override):
        return f"{override.get_key_element()}={_call_text(override)}"
    return str(override.input_line)


def quote_distributions(overrides: Sequence[str]) -> list[str]:
    """Keep calls that Hydra's grammar does not know as text, for scipy.stats to know.

    >>> quote_distributions(["optimizer.lr=loguniform(1e-4,1e-1)", "seed=range(3)"])
    ["optimizer.lr=tag(drawn,choice('loguniform(1e-4,1e-1)'))", 'seed=range(3)']
    """
    functions = create_functions().functions
    quoted = []
    for override in overrides:
        match = CALL.fullmatch(override)
        if match and match[2] not in functions:
            key, name, arguments = match.groups()
            # a choice of one text is a sweep to Hydra, which then asks nothing of its grammar
            override = f"{key}=tag({DISTRIBUTION},choice('{name}({arguments})'))"
        quoted.append(override)
    return quoted


def draw_value(override: Override, rng: Generator) -> str:
    """Draw one value of an axis at random, as text with six digits.

    Args:
        override: an interval, a distribution, or a list of values.
        rng: the axis's own stream.

    Raises:
        ConfigError: scipy.stats has no such distribution, or it takes other numbers.
    """
    value = override.value()
    if _is_distribution(override):
        return _draw_from_distribution(override, rng)
    if isinstance(value, IntervalSweep):
        return _draw_from_interval(override, rng)
    options = list_values(override)
    return options[int(rng.integers(len(options)))]


def _draw_from_interval(override: Override, rng: Generator) -> str:
    import numpy as np

    interval, (low, high) = override.value(), interval_bounds(override)
    assert isinstance(interval, IntervalSweep)
    if "log" not in interval.tags:
        if isinstance(low, int) and isinstance(high, int):
            return format_number(rng.integers(low, high, endpoint=True))
        return format_number(rng.uniform(low, high))
    if isinstance(high, int):
        # the floors of a draw that reaches up to high + 1, so that high has its share
        number = float(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
        return format_number(min(int(number), high))
    return format_number(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _draw_from_distribution(override: Override, rng: Generator) -> str:
    from scipy import stats

    name, arguments = parse_distribution(override)
    try:
        return format_number(getattr(stats, name)(*arguments).rvs(random_state=rng))
    except (AttributeError, TypeError, ValueError) as error:
        problem = f"scipy.stats.{name}: {read_message(error)}"
        if not hasattr(stats, name):
            names = [n for n in dir(stats) if hasattr(getattr(stats, n), "rvs")]
            problem = f"{suggest(name, names)} (scipy.stats)"
        raise ConfigError(f"{format_axis(override)}: {problem}") from error


def interval_bounds(override: Override) -> tuple[float, float]:
    """Return both ends of an interval, as whole numbers where both are written so.

    Raises:
        ConfigError: the lower end is not below the upper, or a logarithm has no place there.
    """
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    low, high = interval.start, interval.end
    assert low is not None and high is not None
    if low >= high:
        raise ConfigError(f"{format_axis(override)} is empty: write the smaller end first")
    if "log" in interval.tags and low <= 0:
        raise ConfigError(f"{format_axis(override)}: what is tagged log begins above 0")
    if isinstance(low, int) and isinstance(high, int):
        return low, high
    return low, float(high)


def format_number(value: Any) -> str:
    """Write a drawn number as text.

    >>> format_number(0.00123456789), format_number(2.0), format_number(7)
    ('0.00123457', '2.0', '7')
    """
    # numpy's integers are no int, and its floats are floats
    if float(value).is_integer() and not isinstance(value, float):
        return str(int(value))
    return repr(float(f"{float(value):.{DIGITS}g}"))


def parse_distribution(override: Override) -> tuple[str, list[Any]]:
    """Return a distribution's name and numbers.

    Raises:
        ConfigError: there is something else between the brackets.
    """
    name, _, rest = _call_text(override).partition("(")
    if rest == ")":
        return name, []
    try:
        return name, list(ast.literal_eval(f"({rest.removesuffix(')')},)"))
    except (ValueError, SyntaxError) as error:
        axis = format_axis(override)
        raise ConfigError(f"{axis}: numbers belong between the brackets") from error


def _call_text(override: Override) -> str:
    choice = override.value()
    assert isinstance(choice, ChoiceSweep)
    return str(getattr(choice.list[0], "text", choice.list[0]))
