"""Axes of a sweep: overrides with several values, intervals and distributions."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.overrides_parser import create_functions
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override

from truerisk.core.errors import ConfigError, suggest
from truerisk.sweeps.sweeper import CellOverrides

if TYPE_CHECKING:
    from numpy.random import Generator

DRAWN = "drawn"
"""Tag of an axis that is a call of a distribution, kept as text."""
CALL = re.compile(r"(\+{0,2}[\w./@]+)=([a-z_]\w*)\(([^'()]*)\)")
DIGITS = 6


class SweepAxes(NamedTuple):
    """The overrides of a sweep, by what is done with them."""

    order: list[str]
    fixed: dict[str, str]
    crossed: dict[str, list[str]]
    searched: dict[str, Override]

    def points(self, chosen: Mapping[str, str]) -> list[CellOverrides]:
        """The cells of one choice of the searched axes: one for each value of the crossed."""
        every = product(*self.crossed.values())
        texts = [dict(zip(self.crossed, values, strict=True)) for values in every]
        return [_point(self.order, {**self.fixed, **chosen, **text}) for text in texts]


def _point(order: Sequence[str], texts: Mapping[str, str]) -> CellOverrides:
    return [f"{key}={texts[key]}" for key in order]


def split_axes(overrides: Sequence[Override], crossed: Collection[str]) -> SweepAxes:
    """Sort overrides; a later one of the same key takes an earlier one's place.

    Raises:
        ConfigError: there is no axis of a name in ``crossed``.
    """
    last = {o.get_key_element(): o for o in overrides}
    fixed = {k: o.get_value_element_as_str() for k, o in last.items() if not o.is_sweep_override()}
    swept = {k: o for k, o in last.items() if o.is_sweep_override()}
    names = {"seed.base" if name == "seed" else name for name in crossed}
    for name in names - {*swept, "seed.base"}:
        raise ConfigError(f"hydra.sweeper.crossed: {name} is no axis here; {suggest(name, swept)}")
    within = {k: list_values(o) for k, o in swept.items() if k in names and o.is_discrete_sweep()}
    return SweepAxes(list(last), fixed, within, {k: o for k, o in swept.items() if k not in within})


def list_values(override: Override) -> list[str]:
    """What an axis goes through, as texts.

    Raises:
        ConfigError: it is an interval or a distribution.
    """
    if not override.is_discrete_sweep() or DRAWN in _tags(override):
        raise ConfigError(f"{format_axis(override)}: {_remedy(override)}")
    return list(override.sweep_string_iterator())


def _tags(override: Override) -> Collection[str]:
    return getattr(override.value(), "tags", None) or ()


def format_axis(override: Override) -> str:
    """An axis as it was written."""
    if DRAWN in _tags(override):
        return f"{override.get_key_element()}={_call(override)}"
    return str(override.input_line)


def _remedy(override: Override) -> str:
    if DRAWN in _tags(override):
        name, functions = _call(override).partition("(")[0], create_functions().functions
        hint = suggest(name, functions)
        if hint.startswith("did"):
            return f"there is no {name}(…); {hint}"
    return (
        f"values are needed here, as in {override.key_or_group}=1,2,3; "
        "take hydra/sweeper=random or optuna to search an interval"
    )


def quote_distributions(overrides: Sequence[str]) -> list[str]:
    """Overrides in which calls that Hydra does not know are kept as text.

    >>> quote_distributions(["optimizer.lr=loguniform(1e-4,1e-1)", "seed=range(3)"])
    ["optimizer.lr=tag(drawn,choice('loguniform(1e-4,1e-1)'))", 'seed=range(3)']
    """
    known = create_functions().functions
    calls = ((o, CALL.fullmatch(o)) for o in overrides)
    return [
        f"{m[1]}=tag({DRAWN},choice('{m[2]}({m[3]})'))" if m and m[2] not in known else o
        for o, m in calls
    ]


def draw_value(override: Override, rng: Generator) -> str:
    """One value of an axis at random, as text with six digits.

    Raises:
        ConfigError: scipy.stats has no such distribution, or it takes other numbers.
    """
    value = override.value()
    if DRAWN in _tags(override):
        return format_number(_drawn(override, rng))
    if isinstance(value, IntervalSweep):
        return _between(value, rng)
    options = list_values(override)
    return options[int(rng.integers(len(options)))]


def _between(interval: IntervalSweep, rng: Generator) -> str:
    import numpy as np

    low, high = interval_bounds(interval)
    if "log" in interval.tags:
        top = high + 1 if isinstance(high, int) else high
        found = float(np.exp(rng.uniform(np.log(low), np.log(top))))
        return format_number(min(int(found), high) if isinstance(high, int) else found)
    if isinstance(low, int) and isinstance(high, int):
        return format_number(rng.integers(low, high, endpoint=True))
    return format_number(rng.uniform(low, high))


def interval_bounds(interval: IntervalSweep) -> tuple[float, float]:
    """Both ends, as whole numbers where both are written so.

    Raises:
        ConfigError: the lower end is not below the upper, or a logarithm has no place there.
    """
    low, high = interval.start, interval.end
    assert low is not None and high is not None
    if low >= high or ("log" in interval.tags and low <= 0):
        raise ConfigError(f"interval({low},{high}) is empty, or begins below 0 and is tagged log")
    return (low, high) if isinstance(low, int) and isinstance(high, int) else (low, float(high))


def format_number(value: Any) -> str:
    """A drawn number as text.

    >>> format_number(0.00123456789), format_number(2.0), format_number(7)
    ('0.00123457', '2.0', '7')
    """
    if float(value).is_integer() and not isinstance(value, float):
        return str(int(value))
    return repr(float(f"{float(value):.{DIGITS}g}"))


def _call(override: Override) -> str:
    value = override.value()
    assert isinstance(value, ChoiceSweep)
    return str(getattr(value.list[0], "text", value.list[0]))


def _drawn(override: Override, rng: Generator) -> Any:
    from scipy import stats

    name, arguments = parse_distribution(override)
    try:
        return getattr(stats, name)(*arguments).rvs(random_state=rng)
    except (AttributeError, TypeError, ValueError) as error:
        if not hasattr(stats, name):
            known = [n for n in dir(stats) if hasattr(getattr(stats, n), "rvs")]
            raise ConfigError(
                f"{format_axis(override)}: {suggest(name, known)} (scipy.stats)"
            ) from error
        raise ConfigError(f"{format_axis(override)}: scipy.stats.{name}: {error}") from error


def parse_distribution(override: Override) -> tuple[str, list[Any]]:
    """A distribution's name and numbers.

    Raises:
        ConfigError: there is something else between the brackets.
    """
    name, _, rest = _call(override).partition("(")
    try:
        found = ast.literal_eval(f"({rest.removesuffix(')')},)") if rest != ")" else ()
    except (ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{format_axis(override)}: numbers belong between the brackets"
        ) from error
    return name, list(found)
