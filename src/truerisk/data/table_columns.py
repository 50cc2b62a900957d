"""Columns of a table that are numbers although they are not written as such, or nearly so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truerisk.core.errors import ConfigError, format_count
from truerisk.data.table_files import (
    THOUSANDS,
    Dialect,
    FileLayout,
    count_gap_texts,
    find_layout,
    find_suffix,
    make_dialect,
    read_parquet,
    read_text_table,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MAX_LABELS = 20
"""Different whole numbers up to which a target is a class, and a column with a text is texts."""
FEW = 5
"""Different texts among numbers up to which they are taken for slips."""
DATES = ("number", "day_first", "month_first", "category")
COMMA = re.compile(r"[+-]?(\d+|\d{1,3}([.'\s]\d{3})+)?(,\d+)?([eE][+-]?\d+)?")
"""A number with a decimal comma, perhaps grouped by points, apostrophes or blanks."""
POINT = re.compile(r"[+-]?\d{1,3}([,'\s]\d{3})+(\.\d*)?([eE][+-]?\d+)?|[+-]?\d*\.?\d+")
"""A number with a decimal point, perhaps grouped by commas, apostrophes or blanks."""
DAY = re.compile(
    r"(?:(?P<year>\d{4})([-/.])(?P<month>\d\d?)\2(?P<day>\d\d?)"
    r"|(?P<one>\d\d?)(?P<sign>[./-])(?P<two>\d\d?)(?P=sign)(?P<last>\d{4}))"
    r"(?:[T ](?P<time>\d\d?:\d\d(?::\d\d(?:\.\d+)?)?(?: ?[AaPp][Mm])?))?(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
"""A date of digits, the year first or last, perhaps with a time of day."""
MONTHS = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
NAMED = re.compile(rf"(?i)\d\d?[ -]{MONTHS}[ -]\d{{4}}|{MONTHS} \d\d?,? \d{{4}}")
"""A date whose month has its English name."""
AMOUNT = re.compile(
    r"(?=.*[$€£¥₹%])([+-]?)\s*([$€£¥₹%]?)\s*([+-]?\d(?:[\d.,'\s]*\d)?)\s*([$€£¥₹%]?)"
)
"""A number with a currency or a per cent sign on one side."""


class Table(NamedTuple):
    """A table that was read.

    Args:
        frame: its columns: numbers, truth values, texts, or lists.
        guessed: how it was read, where that was not given, for people.
        gaps: texts that were taken for gaps, by column, with their counts.
    """

    frame: DataFrame
    guessed: list[str]
    gaps: dict[str, dict[str, int]]


def read_table(file: Path | DataFrame, texts: Sequence[str], dates: str, **keys: Any) -> Table:
    """Read a CSV, ARFF or Parquet file: numbers as numbers, the rest as texts.

    Args:
        file: the table, or its path.
        texts: columns that stay texts, whatever is in them.
        dates: ``number`` for dates as days since 1970, ``category`` for dates in text as they are;
            ``day_first`` or ``month_first`` for what ``03/04/2020`` means.
        keys: of `Dialect`.

    Raises:
        ConfigError: it cannot be read, a row does not fit the header, or numbers are written in a
            way that could mean two things.
    """
    if dates not in DATES:
        raise ConfigError(f"data.source.dates is '{dates}': give one of {', '.join(DATES)}")
    suffix = find_suffix(file) if isinstance(file, Path) else ""
    dialect = make_dialect(suffix, **keys)
    guessed: list[str] = []
    gaps: dict[str, dict[str, int]] = {}
    if not isinstance(file, Path):
        frame = file
    elif suffix in (".parquet", ".pq"):
        frame = read_parquet(file)
    else:
        layout = find_layout(file, dialect)
        frame, signs = _read_signs(file, dialect, layout, texts)
        guessed = [*layout.guessed, *signs]
        if frame.isna().any(axis=None):
            gaps = count_gap_texts(file, dialect, layout)
    if frame.empty:
        raise ConfigError(f"data.source.path: {file} has no rows")
    frame, found = read_columns(frame, texts, dates, dialect)
    return Table(frame, [*guessed, *found], gaps)


def text_columns(frame: DataFrame, but: Iterable[str] = ()) -> Iterator[tuple[str, Series]]:
    """Yield the columns of texts, with their texts alone, stripped, gaps left out.

    Args:
        frame: a table.
        but: columns that are passed over.
    """
    import pandas as pd

    for name in frame.columns:
        column = frame[name]
        # texts are objects to older versions of pandas
        if name in but or not (column.dtype == object or isinstance(column.dtype, pd.StringDtype)):
            continue
        values = column.dropna()
        if len(values) and all(isinstance(value, str) for value in values):
            yield name, values.astype(str).str.strip()


# --- signs of numbers -----------------------------------------------------------------------------


def _read_signs(
    file: Path, dialect: Dialect, layout: FileLayout, texts: Sequence[str]
) -> tuple[DataFrame, list[str]]:
    """Read a text file, once more where its numbers turn out to have decimal commas or groups."""
    frame = read_text_table(file, dialect, layout, texts)
    if dialect.decimal != "auto":
        return frame, []
    stays, found = [*texts, *layout.texts], dialect
    for name, tokens in list(text_columns(frame, stays)):
        decimal, thousands = _judge_signs(name, tokens)
        if decimal is None:
            # or pandas would make one number of "3,14,15" where commas are between thousands
            stays.append(name)
            continue
        if found.decimal not in ("auto", decimal) or found.thousands not in (None, thousands):
            raise ConfigError(
                f"data.source: column '{name}' has numbers such as '{tokens.iloc[0]}', and another "
                "column writes them otherwise: set data.source.decimal and data.source.thousands, "
                "or correct one of them"
            )
        found = replace(found, decimal=decimal, thousands=thousands or found.thousands)
    if found is dialect:
        return frame, []
    if found.decimal == ",":
        again = read_text_table(file, found, layout, stays)
        found = replace(found, thousands=_find_points(frame, again, found.thousands))
    guessed = ["decimal commas"] if found.decimal == "," else []
    if found.thousands:
        guessed.append(f"thousands set apart by '{found.thousands}'")
    return read_text_table(file, found, layout, stays), guessed


def _find_points(frame: DataFrame, again: DataFrame, thousands: str | None) -> str | None:
    """Return the sign between thousands, where a table with decimal commas has points too.

    Args:
        frame: as it was read with decimal points.
        again: as it was read with decimal commas, where a number with a point is a text.
        thousands: the sign that other columns have.
    """
    for name, tokens in text_columns(again):
        if frame[name].dtype.kind != "f":
            continue
        if not all(re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})*", text) for text in tokens):
            raise ConfigError(
                f"data.source: column '{name}' has decimal points ('{tokens.iloc[0]}'), and others "
                "have decimal commas: write one of them, or set data.source.decimal"
            )
        thousands = "."
    return thousands


def _judge_signs(name: str, tokens: Series) -> tuple[str | None, str | None]:
    """Return the decimal sign and that between thousands of a column of numbers; None for others.

    Raises:
        ConfigError: its numbers can be read in two ways.
    """
    if not tokens.str.contains(r"\d", regex=True).all():
        return None, None
    comma, point = (all(map(pattern.fullmatch, tokens)) for pattern in (COMMA, POINT))
    grouped = [
        sign
        for sign in THOUSANDS
        if tokens.str.contains(rf"\d[{sign}]\d{{3}}(?!\d)", regex=True).any()
    ]
    if comma and point and "," in grouped:
        raise ConfigError(
            f"data.source: column '{name}' holds numbers such as '{tokens.iloc[0]}', whose comma "
            "can stand before decimals or between thousands: set data.source.decimal=',' or "
            "data.source.thousands=',', or name the column in data.source.categorical"
        )
    if point:
        return ".", next((sign for sign in grouped if sign != "."), None)
    if comma:
        return ",", next((sign for sign in grouped if sign != ","), None)
    return None, None


# --- columns of other kinds -----------------------------------------------------------------------


def read_columns(
    frame: DataFrame, texts: Sequence[str], dates: str, dialect: Dialect | None = None
) -> tuple[DataFrame, list[str]]:
    """Turn decimals, dates, times, durations and amounts into numbers, and tell which were.

    Args:
        frame: a table.
        texts: columns that stay as they are.
        dates: see `read_table`.
        dialect: with the signs in amounts.
    """
    import pandas as pd

    found: dict[str, list[str]] = {}
    columns: dict[str, Any] = {}
    for name in frame.columns:
        column, kind = frame[name], ""
        if name not in texts:
            column, kind = _read_column(column, dates)
            if not kind and _holds_texts(column):
                column, kind = _read_amounts(column, dialect or Dialect())
        columns[name] = column
        if kind:
            found.setdefault(kind, []).append(str(name))
    notes = [f"{kind}: {', '.join(names)}" for kind, names in found.items()]
    return pd.DataFrame(columns, index=frame.index), notes


def _read_column(column: Series, dates: str) -> tuple[Series, str]:
    """Return a column as numbers where it is some, and what it was, for people."""
    import datetime
    import decimal

    import pandas as pd

    kinds = {type(value) for value in column.dropna()} if column.dtype == object else set()
    if kinds == {decimal.Decimal}:
        return column.astype(float), ""
    if kinds and kinds <= {datetime.time}:
        seconds = column.map(_count_seconds, na_action="ignore")
        return seconds.astype(float), "times of day in seconds"
    if kinds and kinds <= {datetime.date, datetime.datetime}:
        column = pd.to_datetime(column)
    elif dates != "category" and _holds_texts(column):
        column = _read_days(column, dates)
    if pd.api.types.is_datetime64_any_dtype(column):
        if column.dt.tz is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return (column - pd.Timestamp(0)) / pd.Timedelta(days=1), "dates in days since 1970"
    if pd.api.types.is_timedelta64_dtype(column):
        return column.dt.total_seconds(), "durations in seconds"
    return column, ""


def _holds_texts(column: Series) -> bool:
    """Tell whether a column holds texts alone, which are objects to pandas before 3."""
    import pandas as pd

    if column.dtype == object:
        return all(isinstance(value, str) for value in column.dropna())
    return isinstance(column.dtype, pd.StringDtype)


def _read_days(column: Series, dates: str) -> Series:
    """Return dates in text as moments, and any other texts as they are.

    Raises:
        ConfigError: a date can be read in two ways, or there is no such day.
    """
    import pandas as pd

    tokens = column.dropna().str.strip()
    named = tokens.map(lambda text: NAMED.fullmatch(text) is not None)
    parts = tokens.str.extract(f"^{DAY.pattern}$")
    known = parts["year"].notna() | parts["last"].notna()
    if not len(tokens) or not (known | named).all():
        return column
    slashed = parts.index[parts["sign"].isin(["/", "-"])]
    if len(slashed) and dates == "number":
        text = f"'{tokens[slashed[0]]}' in row {slashed[0] + 1}"
        late = {name: (parts[name].dropna().astype(int) > 12).any() for name in ("one", "two")}
        fits = "both fit all of its rows"
        if late["one"] != late["two"]:
            fits = f"{'day_first' if late['one'] else 'month_first'} fits all of its rows"
        raise ConfigError(
            f"data.source: column '{column.name}' holds dates such as {text}: set "
            f"data.source.dates to day_first or month_first ({fits}), or to category"
        )
    day, month = ("two", "one") if dates == "month_first" else ("one", "two")
    written = tokens.where(named, parts["year"].fillna(parts["last"]))
    for name, other in (("month", month), ("day", day)):
        # as texts, for a column without any becomes one of numbers in pandas before 3
        number = parts[name].fillna(parts[other]).astype("string").str.zfill(2)
        written = written.where(named, written + "-" + number)
    clock = (" " + parts["time"].str.zfill(5)).fillna("") + parts["zone"].fillna("")
    moments = pd.to_datetime(
        written + clock.where(~named, ""), format="mixed", utc=True, errors="coerce"
    )
    if moments.isna().any():
        row = moments.index[moments.isna()][0]
        raise ConfigError(
            f"data.source: column '{column.name}' holds '{tokens[row]}' in row {row + 1}, which is "
            "no day: correct it, or set data.source.dates to day_first, month_first or category"
        )
    return moments.reindex(column.index)


def _read_amounts(column: Series, dialect: Dialect) -> tuple[Series, str]:
    """Return numbers that have all one currency or a per cent sign, and any other texts as texts.

    Raises:
        ConfigError: they have several signs, or can be read in two ways.
    """
    tokens = column.dropna().str.strip()
    parts = tokens.str.extract(f"^{AMOUNT.pattern}$")
    if not len(tokens) or parts[2].isna().any():
        return column, ""
    units = parts[1] + parts[3]
    unit = str(units.value_counts().index[0])
    odd = units.index[(units != unit) | (units.str.len() != 1)]
    if len(odd):
        raise ConfigError(
            f"data.source: column '{column.name}' holds amounts in {unit}, but for "
            f"'{tokens[odd[0]]}' in row {odd[0] + 1}: write all in one unit, or name the column in "
            "data.source.categorical"
        )
    numbers = parts[0] + parts[2]
    decimal, thousands = dialect.decimal, dialect.thousands
    if decimal == "auto" and thousands is None:
        judged = _judge_signs(str(column.name), numbers)
        decimal, thousands = judged[0] or ".", judged[1]
    if thousands is not None:
        numbers = numbers.str.replace(thousands, "", regex=False)
    if decimal == ",":
        numbers = numbers.str.replace(",", ".", regex=False)
    try:
        return numbers.astype(float).reindex(column.index), f"amounts in {unit}"
    except ValueError:  # dates and numbers of versions have signs between digits too
        return column, ""


def _count_seconds(time: Any) -> float:
    return time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6


# --- texts among numbers --------------------------------------------------------------------------


def find_slips(frame: DataFrame, texts: Sequence[str]) -> list[str]:
    """Describe the columns that are texts because of a few texts among their numbers.

    Args:
        frame: a table.
        texts: columns that are meant to be texts.

    Returns:
        A line each, for columns of few numbers or dates, which may be meant as categories.

    Raises:
        ConfigError: a column has more than ``MAX_LABELS`` different numbers beside such texts.
    """
    import pandas as pd

    lines = []
    for name, tokens in text_columns(frame, texts):
        kind = "numbers"
        numbers = pd.to_numeric(tokens, errors="coerce")
        for pattern, what in ((DAY, "dates"), (NAMED, "dates"), (AMOUNT, "amounts")):
            alike = tokens.map(lambda text, pattern=pattern: bool(pattern.fullmatch(text)))
            if alike.mean() > numbers.notna().mean():
                numbers, kind = tokens.where(alike), what
        odd = tokens[numbers.isna()]
        share = 1 - len(odd) / len(tokens)
        few = odd.nunique() <= FEW or share >= 0.9
        if not len(odd) or share < 0.5 or not few:
            continue
        first = odd.index[0] + 1
        seen = f"'{odd.iloc[0]}' in row {first}"
        if len(odd) > 1:
            seen += f" ({len(odd)} such rows)"
        if numbers.nunique() > MAX_LABELS:
            raise ConfigError(
                f"data.source: column '{name}' holds {kind}, but for {seen}: set "
                f"data.source.na_values=['{odd.iloc[0]}'] if it stands for a gap, correct it, or "
                "name the column in data.source.categorical"
            )
        lines.append(f"column '{name}' is read as texts because of {seen}")
    return lines


def find_texts(frame: DataFrame, texts: Sequence[str]) -> dict[str, str]:
    """Return the first text that is no number of each column, and its row, for people.

    Args:
        frame: a table.
        texts: its columns that are categories.
    """
    import pandas as pd

    found = {}
    for name in texts:
        tokens = frame[name].dropna().astype(str)  # texts may stand beside numbers
        odd = tokens[pd.to_numeric(tokens, errors="coerce").isna()]
        if len(odd):
            found[name] = f"'{odd.iloc[0]}' in row {odd.index[0] + 1}"
    return found


def spread_lists(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Give each place of a column of lists of numbers a column of its own, ``name[k]``.

    Args:
        frame: a table.
        names: columns to learn from.

    Raises:
        ConfigError: lists are of several lengths or hold other things than numbers, or a column
            holds records.
    """
    import numpy as np
    import pandas as pd

    parts: list[Any] = []
    for name in names:
        column = frame[name]
        values = column.dropna() if column.dtype == object else column.iloc[:0]
        nested = {type(v) for v in values if isinstance(v, list | tuple | np.ndarray | dict)}
        if not nested:
            parts.append(column)
            continue
        lengths = {len(v) for v in values if not isinstance(v, dict)}
        flat = dict not in nested and len(lengths) == 1 and len(values) == len(column)
        try:
            matrix = np.array(values.tolist(), dtype=float)
        except (TypeError, ValueError):
            flat = False
        if not flat or matrix.ndim != 2:
            raise ConfigError(
                f"data.source: column '{name}' holds lists or records that are not of one length "
                "and of numbers alone: leave it out with data.source.drop, or give each of their "
                "parts a column"
            )
        spread = [f"{name}[{k}]" for k in range(matrix.shape[1])]
        parts.append(pd.DataFrame(matrix, columns=spread, index=frame.index))
    return pd.concat(parts, axis=1)


# --- told, dropped, and made numbers --------------------------------------------------------------


def describe_table(
    file: Path | DataFrame,
    whole: DataFrame,
    frame: DataFrame,
    texts: Sequence[str],
    goals: Sequence[str],
    phrase: str,
    read: Table,
    missing: str,
) -> str:
    """Tell in a line what was read, guessed, left out and filled in.

    Args:
        file: the table's.
        whole: features and targets, with their gaps.
        frame: the rows of them that are used.
        texts: the columns that are categories.
        goals: the targets.
        phrase: what is learned.
        read: all that was read.
        missing: what fills gaps.
    """
    features = whole.columns.difference(goals)
    name = getattr(file, "name", "DataFrame")
    goal = f"target {', '.join(goals) or 'not given'}"
    parts = [
        f"{name}: {len(frame)} row{'s' * (len(frame) != 1)}, "
        f"{len(features) - len(texts)} numeric and {len(texts)} categorical columns, {goal} "
        f"({phrase})"
    ]
    others = [str(n) for n in read.frame.columns if n not in whole.columns and n not in goals]
    # lists were spread over columns of their own
    left = [n for n in others if f"{n}[0]" not in whole.columns]
    if left:
        parts.append(f"left out: {_list_names(left)}")
    if read.guessed:
        parts.append(", ".join(read.guessed))
    if len(whole) > len(frame):
        parts.append(f"{format_count(len(whole) - len(frame), 'row')} with gaps dropped")
    gaps = {str(n): int(count) for n, count in frame[features].isna().sum().items() if count}
    if gaps:
        ways = {missing, "most_frequent"} if set(gaps) & set(texts) else {missing}
        filled = _list_names([f"{n} ({count})" for n, count in gaps.items()])
        parts.append(f"gaps filled by the {' or '.join(sorted(ways))}: {filled}")
    return "; ".join(parts)


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def find_counters(frame: DataFrame, names: Sequence[str]) -> list[str]:
    """Tell of columns that count the rows or name them, which say nothing of other rows.

    Args:
        frame: a table.
        names: columns to learn from.
    """
    import numpy as np

    lines = []
    for name in names:
        column = frame[name]
        if not is_number_column(column) or column.dtype.kind not in "iu" or len(column) < 3:
            continue
        counts = bool((np.diff(column.to_numpy()) == 1).all())
        named = re.search(r"(^|[_\W])(id|index|idx|row|nr)$|^Unnamed: 0$", name.lower())
        if counts or (named and column.is_unique):
            lines.append(
                f"column '{name}' has another number in each row, as an id has: leave it out with "
                f"data.source.drop=['{name}'] if it is one"
            )
    return lines


def is_number_column(column: Series) -> bool:
    """Tell whether a column holds numbers or truth values."""
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column))


def drop_gaps(
    frame: DataFrame, goals: list[str], missing: str, tokens: Mapping[str, Mapping[str, int]]
) -> DataFrame:
    """Return the table with its gaps dropped or refused, or left for the encoder to fill.

    Args:
        frame: features and targets.
        goals: the targets.
        missing: what is to be done.
        tokens: how gaps were written, by column.

    Raises:
        ConfigError: there are gaps, and they are refused, or all rows have one.
    """
    gaps = frame.isna().sum()
    if missing == "drop":
        kept = frame.dropna()
        if kept.empty:
            raise ConfigError("data.source.missing=drop: every row has a gap; fill them instead")
        # A gap has made floats of whole numbers, which may be classes.
        whole = [n for n, k in gaps.items() if k and _is_whole(kept[n])]
        return kept.astype(dict.fromkeys(whole, "int64"))
    bad = {n: int(k) for n, k in gaps.items() if k and (missing == "refuse" or n in goals)}
    if bad:
        listed = ", ".join(
            f"'{name}' ({', '.join([str(count), *map(repr, tokens.get(name, ()))])})"
            for name, count in bad.items()
        )
        ways = "drop" if set(bad) <= set(goals) else "mean, median, most_frequent or drop"
        spelt = ""
        if any(name in tokens for name in bad):
            spelt = ", or data.source.keep_default_na=false where such a text is no gap"
        raise ConfigError(
            f"data.source.missing: values are missing in the columns {listed}; set "
            f"data.source.missing to {ways}{spelt}"
        )
    return frame


def _is_whole(column: Series) -> bool:
    return column.dtype.kind == "f" and bool((column == column.round()).all())
