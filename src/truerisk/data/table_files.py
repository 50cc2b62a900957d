"""Tables as they lie on disk: which dialect a CSV is written in, ARFF and Parquet; pandas reads."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from truerisk.core.errors import ConfigError, first_line

if TYPE_CHECKING:
    from pandas import DataFrame

DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'", " ": "blanks"}
"""What is tried where the delimiter is to be guessed, in this order, and what messages call it."""
BLANKS = r"\s+"
"""Several blanks as one, in pandas' words."""
THOUSANDS = (",", ".", "'", " ", "\xa0", "\u202f")
"""Signs between groups of three digits; the last two are blanks at which no line is broken."""
ROW_NAMES = "\0row names"
"""What rows begin with that the header has no name for, as R writes tables."""
SAMPLE = 100
"""Records of a file by which its delimiter and its header are found."""
SUFFIXES = (".csv", ".tsv", ".txt", ".arff", ".parquet", ".pq")
GAPS = frozenset(
    [
        *("#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "n/a", "NULL", "null", "None"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)
"""Texts that pandas takes for gaps, beside empty fields."""


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written, as its keys in ``data.source`` say.

    Attributes:
        delimiter: between the fields; ``auto`` guesses it.
        decimal: sign before decimals, a point or a comma; ``auto`` guesses it.
        thousands: sign between groups of three digits; None for none.
        encoding: of the text.
        skip_lines: lines before the header.
        na_values: texts that stand for a gap, beside those of pandas.
        keep_default_na: whether those of pandas do.
    """

    delimiter: str = "auto"
    decimal: str = "auto"
    thousands: str | None = None
    encoding: str = "utf-8"
    skip_lines: int = 0
    na_values: Sequence[str] = ()
    keep_default_na: bool = True

    @property
    def gaps(self) -> frozenset[str]:
        """The texts that stand for a gap."""
        return frozenset(self.na_values) | (GAPS if self.keep_default_na else frozenset())


@dataclass(frozen=True)
class FileLayout:
    """Where the header and the rows of a text file are, and how its lines are cut into fields.

    Attributes:
        names: of the columns.
        skip: lines up to the first row.
        delimiter: in pandas' words.
        width: fields of the widest row, which may end in delimiters.
        quote: the sign around fields.
        skipped: single lines among the rows that are comments, counted from 0.
        texts: columns that the header says are no numbers.
        guessed: what was found out rather than given, for people.
    """

    names: list[str]
    skip: int
    delimiter: str
    width: int
    quote: str = '"'
    skipped: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()


def find_suffix(file: Path) -> str:
    """Return what the name of a table ends in, as in ``data.csv.gz``.

    Raises:
        ConfigError: it is none that can be read.
    """
    suffix = file.suffix.lower()
    if suffix == ".gz":
        suffix = file.with_suffix("").suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"data.source.path: {file} is neither .csv, .tsv, .txt nor .parquet or .arff"
        )
    return suffix


def find_layout(file: Path, dialect: Dialect) -> FileLayout:
    """Find the header of a text file, and check that every row fits it.

    Args:
        file: a CSV, or ARFF.
        dialect: what is known of it.

    Raises:
        ConfigError: it is empty, not of that encoding, names a column twice, or a row has another
            number of fields than the header; the line is told.
    """
    suffix = find_suffix(file)
    try:
        if suffix == ".arff":
            layout = _read_arff_header(file, dialect)
        else:
            layout = _read_header(file, dialect, suffix)
        twice = [name for name, count in Counter(layout.names).items() if count > 1]
        if twice:
            raise ConfigError(
                f"data.source.path: {file} names the column '{twice[0]}' twice: give each column "
                "a name of its own in its header"
            )
        return _check_rows(file, dialect, layout)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"data.source.path: {file} is not written in {dialect.encoding} (byte "
            f"0x{error.object[error.start]:02x}): set data.source.encoding, for instance to cp1252 "
            "for files of Windows, latin-1, or utf-16"
        ) from None
    except LookupError:
        raise ConfigError(
            f"data.source.encoding is '{dialect.encoding}': Python knows no such encoding; usual "
            "ones are utf-8, cp1252, latin-1 and utf-16"
        ) from None
    except csv.Error as error:
        raise ConfigError(
            f"data.source.path: {file} cannot be read as {suffix} ({first_line(error)})"
        ) from None


def read_text_table(
    file: Path, dialect: Dialect, layout: FileLayout, texts: Sequence[str] = ()
) -> DataFrame:
    """Read the rows of a text file by pandas.

    Args:
        file: a CSV, or ARFF.
        dialect: with the signs in its numbers; ``auto`` takes points.
        layout: what `find_layout` has found.
        texts: columns that are read as texts, whatever is in them.

    Raises:
        ConfigError: pandas cannot read it.
    """
    import pandas as pd

    decimal = "." if dialect.decimal == "auto" else dialect.decimal
    # a name for each field that ends in nothing: pandas would else take the first for an index
    fillers = [f"\0{k}" for k in range(layout.width - len(layout.names))]
    source: Any = file
    skip = layout.skip
    if layout.skipped:  # pandas counts records, and one in quotes may have several lines
        source, skip = _strip_comments(file, dialect, layout), 0
    engine: dict[str, Any] = {"engine": "python"}
    plain = len(layout.delimiter) == 1 or layout.delimiter == BLANKS
    if plain and (dialect.thousands or "").isascii():  # the fast engine passes over other signs
        # Whole columns at a time, as parts of one could be read as numbers and others as texts.
        engine = {"low_memory": False}
    try:
        frame = pd.read_csv(
            source,
            sep=layout.delimiter,
            header=None,
            names=[*layout.names, *fillers],
            index_col=False,
            skiprows=skip,
            # As text, so that a gap does not turn the category 3 into 3.0.
            dtype=dict.fromkeys([*texts, *layout.texts], str),
            decimal=decimal,
            thousands=dialect.thousands,
            encoding=dialect.encoding,
            quotechar=layout.quote,
            na_values=list(dialect.na_values),
            keep_default_na=dialect.keep_default_na,
            **engine,
        )
    except (OSError, ValueError) as error:
        opened = _find_open_quote(file, dialect, layout)
        if opened and "EOF inside string" in str(error):
            raise ConfigError(_describe_open_quote(file, layout, opened)) from None
        suffix = find_suffix(file)
        raise ConfigError(
            f"data.source.path: {file} cannot be read as {suffix} ({first_line(error)})"
        ) from None
    return frame[[name for name in layout.names if name != ROW_NAMES]]


def _find_open_quote(file: Path, dialect: Dialect, layout: FileLayout) -> int:
    """Return the line in which the last quote is opened; 0 where quotes come in pairs."""
    opened = 0
    with _open_text(file, dialect) as lines:
        for number, line in enumerate(lines, 1):
            if number > layout.skip and line.count(layout.quote) % 2:
                opened = number * (not opened)
    return opened


def _describe_open_quote(file: Path, layout: FileLayout, line: int) -> str:
    return (
        f"data.source.path: {file} cannot be read, as the quote {layout.quote} that is opened in "
        f"line {line} is not closed: close it, or double it where it is part of a text"
    )


def read_parquet(file: Path) -> DataFrame:
    """Read a Parquet file.

    Raises:
        ConfigError: pyarrow is missing, or it cannot be read.
    """
    import pandas as pd

    try:
        # Parquet may number its columns
        return pd.read_parquet(file).reset_index(drop=True).rename(columns=str)
    except ImportError:
        raise ConfigError(
            "reading Parquet needs pyarrow: pip install 'truerisk[parquet]'"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.source.path: {file} cannot be read as .parquet ({first_line(error)})"
        ) from None


def _strip_comments(file: Path, dialect: Dialect, layout: FileLayout) -> IO[str]:
    """Return the rows of a file alone, without the comments among them."""
    comments = set(layout.skipped)
    with _open_text(file, dialect) as lines:
        kept = (line for k, line in enumerate(lines) if k >= layout.skip and k not in comments)
        return io.StringIO("".join(kept))


def _open_text(file: Path, dialect: Dialect) -> IO[str]:
    # a mark at the beginning is no part of the first column's name
    encoding = re.sub(r"(?i)^utf-?8$", "utf-8-sig", dialect.encoding)
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding=encoding, newline="")
    return file.open(encoding=encoding, newline="")


def _read_header(file: Path, dialect: Dialect, suffix: str) -> FileLayout:
    """Find the delimiter and the header of a CSV."""
    with _open_text(file, dialect) as lines:
        sample = list(islice(lines, dialect.skip_lines, dialect.skip_lines + SAMPLE))
    if not any(line.strip() for line in sample):
        raise ConfigError(f"data.source.path: {file} cannot be read as .csv (it is empty)")
    delimiter, guessed = dialect.delimiter, []
    likely = _guess_delimiter(sample)
    if suffix == ".tsv" and delimiter in ("auto", ","):
        delimiter = "\t"
    elif delimiter == "auto":
        delimiter = likely or ","
        if delimiter != ",":
            guessed.append(f"separated by {DELIMITERS[delimiter]}")
    if not delimiter:
        raise ConfigError("data.source.delimiter is empty: give a sign, or auto")
    records = list(_split_records(sample, delimiter))
    # one blank between fields, some of which are empty, or several as one
    uneven = len({len(fields) for _, fields in records}) > 1 or "" in records[0][1]
    if delimiter == " " and (uneven or dialect.delimiter == "auto"):
        delimiter = BLANKS
        records = list(_split_records(sample, delimiter))
    width = max(len(fields) for _, fields in records)
    if width == 1 and likely not in (None, delimiter):
        raise ConfigError(
            f"data.source.path: no line of {file} has a {DELIMITERS.get(delimiter, delimiter)!s}: "
            f"its fields are separated by {DELIMITERS[str(likely)]}; leave data.source.delimiter "
            "at auto"
        )
    place = _find_header(records, dialect.skip_lines)
    line, names = records[place]
    while names and not names[-1].strip():  # a header may end in the delimiter
        names = names[:-1]
    if place:
        guessed.append(f"{records[place - 1][0]} lines before the header left out")
    if names[0].strip() == "#" and all(len(f) == len(names) - 1 for _, f in records[place + 1 :]):
        names = names[1:]
    names = [
        name.lstrip("# ").strip() or name.strip() or f"Unnamed: {k}" for k, name in enumerate(names)
    ]
    if _lacks_row_names(sample[:SAMPLE], records[place:], line):
        names = [ROW_NAMES, *names]
        guessed.append("names of rows, which the header has no name for, left out")
    return FileLayout(
        names,
        skip=dialect.skip_lines + line,
        delimiter=delimiter,
        width=len(names),
        guessed=tuple(guessed),
    )


def _split_records(
    lines: Iterator[str] | Sequence[str], delimiter: str, quote: str = '"'
) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each record that is not blank, with the number of its last line."""
    if len(delimiter) == 1:
        reader = csv.reader(lines, delimiter=delimiter, quotechar=quote)
        records: Iterator[tuple[int, list[str]]] = ((reader.line_num, row) for row in reader)
    else:
        records = enumerate((_split_line(line, delimiter) for line in lines), 1)
    for number, fields in records:
        if fields and (len(fields) > 1 or fields[0].strip()):
            yield number, fields


def _split_line(line: str, pattern: str) -> list[str]:
    if pattern == BLANKS and '"' in line:
        with suppress(ValueError):  # a quote that is not closed is one of a text
            return shlex.split(line)
    return re.split(pattern, line.strip())


def _guess_delimiter(sample: Sequence[str]) -> str | None:
    """Return what cuts most lines of a sample into one number of fields; None if nothing does.

    The header counts as any line does: decimal commas cut the rows alike, but not it.
    """
    best, highest = None, 0.0
    for delimiter in DELIMITERS:
        pattern = BLANKS if delimiter == " " else delimiter
        counts = Counter(len(fields) for _, fields in _split_records(sample, pattern))
        width, lines = counts.most_common(1)[0]
        share = lines / counts.total()
        # the first of two that fit alike
        if width > 1 and share > highest:
            best, highest = delimiter, share
    return best


def _find_header(records: Sequence[tuple[int, list[str]]], told: int) -> int:
    """Return the place of the header: the first record, or that after lines of one field each.

    Args:
        records: of the sample.
        told: how many lines the user has set aside, after which none is guessed.
    """
    usual = Counter(len(fields) for _, fields in records).most_common(1)[0][0]
    place = 0
    while not told and usual > 1 and place < len(records) - 1:
        fields = [text for text in records[place][1] if text.strip()]
        comment = records[place][1][0].lstrip().startswith(("#", "%"))
        if len(fields) > 1 and not (comment and len(records[place][1]) != usual):
            break
        place += 1
    # numbers are no names: the lines before were a header that is too short
    if place and any(map(_is_number_text, records[place][1])):
        return 0
    return place


def _lacks_row_names(
    sample: Sequence[str], records: Sequence[tuple[int, list[str]]], line: int
) -> bool:
    """Tell a table of R's: each row begins with its name in quotes, and the header has none for it.

    Rows of one field more without quotes may as well lack the name of their last column.

    Args:
        sample: lines of the file.
        records: the header and the rows of the sample.
        line: the number of the header's line.
    """
    (_, names), *rows = records
    first = [fields[0] for _, fields in rows]
    return (
        len(rows) > 0
        and all(len(fields) == len(names) + 1 for _, fields in rows)
        and len(set(first)) == len(first)
        and all(text.lstrip().startswith('"') for text in sample[line - 1 :] if text.strip())
    )


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_rows(file: Path, dialect: Dialect, layout: FileLayout) -> FileLayout:
    """Count the fields of every row."""
    if _is_even(file, dialect, layout):
        return layout
    count = width = len(layout.names)
    trailing, rows, comments = 0, 0, []
    for number, fields in _iterate_rows(file, dialect, layout):
        rows += 1
        if len(fields) != count and fields[0].startswith(("#", "%")) and not layout.skipped:
            comments.append(layout.skip + number - 1)
        elif len(fields) != count:
            if len(fields) < count or any(map(str.strip, fields[count:])):
                opened = _find_open_quote(file, dialect, layout)
                if 0 < opened < layout.skip + number:  # it has swallowed lines
                    raise ConfigError(_describe_open_quote(file, layout, opened))
                raise ConfigError(_describe_misfit(file, layout, number, fields))
            width, trailing = max(width, len(fields)), trailing + 1
    told = []
    if trailing:
        told.append(f"{trailing} of {rows - len(comments)} rows end in the delimiter")
    if comments:
        layout = replace(layout, skipped=tuple(comments))
        told.append(f"comment lines left out: {len(comments)}")
    return replace(layout, width=width, guessed=(*layout.guessed, *told))


def _is_even(file: Path, dialect: Dialect, layout: FileLayout) -> bool:
    """Tell whether every line has as many delimiters as the header, and none a quote.

    It takes a tenth of the time that cutting the lines into fields does.
    """
    if len(layout.delimiter) > 1 or layout.skipped:
        return False
    expected, sign, quote = len(layout.names) - 1, layout.delimiter, layout.quote
    with _open_text(file, dialect) as lines:
        return all(
            quote not in line and line.count(sign) == expected
            for line in islice(lines, layout.skip, None)
        )


def _iterate_rows(
    file: Path, dialect: Dialect, layout: FileLayout
) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row, with the number of its last line below the header."""
    with _open_text(file, dialect) as lines:
        rest: Iterator[str] = islice(lines, layout.skip, None)
        if layout.skipped:
            comments = set(layout.skipped)
            rest = (line for k, line in enumerate(rest, layout.skip) if k not in comments)
        yield from _split_records(rest, layout.delimiter, layout.quote)


def count_gap_texts(file: Path, dialect: Dialect, layout: FileLayout) -> dict[str, dict[str, int]]:
    """Count the texts that stand for gaps, by column.

    Args:
        file: a CSV, or ARFF.
        dialect: which says what does.
        layout: what `find_layout` has found.
    """
    found: dict[str, Counter[str]] = {}
    texts = dialect.gaps
    for _, fields in _iterate_rows(file, dialect, layout):
        if not texts.isdisjoint(fields):
            for name, text in zip(layout.names, fields, strict=False):
                if text in texts:
                    found.setdefault(name, Counter())[text] += 1
    return {name: dict(counts) for name, counts in found.items()}


def _describe_misfit(file: Path, layout: FileLayout, number: int, fields: list[str]) -> str:
    names, sign = layout.names, DELIMITERS.get(layout.delimiter, "blanks")
    text = (
        f"data.source.path: line {layout.skip + number} of {file} has {len(fields)} fields "
        f"separated by {sign}, and the header has {len(names)} ({', '.join(names[:6])}"
        f"{', …' * (len(names) > 6)})"
    )
    if len(fields) == len(names) + 1:
        return (
            f"{text}: give each column a name, that of row numbers too, or set "
            "data.source.skip_lines if the header is not the first line"
        )
    return (
        f"{text}: correct it, or set data.source.delimiter, or data.source.skip_lines if the "
        "header is not the first line"
    )


# --- ARFF -----------------------------------------------------------------------------------------

ATTRIBUTE = re.compile(r"""@attribute\s+('[^']*'|"[^"]*"|\S+)\s+(.*)""", re.IGNORECASE)
NUMBERS = ("numeric", "real", "integer")


def _read_arff_header(file: Path, dialect: Dialect) -> FileLayout:
    """Read the attributes of an ARFF, whose rows are then those of a CSV.

    Source: Witten, Frank & Hall, "Data Mining" (2011), §2.4.
    """
    names: list[str] = []
    texts: list[str] = []
    comments: list[int] = []
    start, quote = None, "'"
    with _open_text(file, dialect) as lines:
        for number, line in enumerate(map(str.strip, lines)):
            if start is not None:
                if line.startswith("%"):
                    comments.append(number)
                elif line.startswith("{"):
                    raise ConfigError(
                        f"data.source.path: {file} is a sparse ARFF (line {number + 1}): write "
                        "its rows out"
                    )
                elif '"' in line:
                    quote = '"'
            elif match := ATTRIBUTE.match(line):
                names.append(match[1].strip("'\""))
                if match[2].split()[0].lower() not in NUMBERS:
                    texts.append(names[-1])
            elif line.lower().startswith("@data"):
                start = number + 1
    if start is None or not names:
        raise ConfigError(f"data.source.path: {file} cannot be read as .arff (no @data)")
    return FileLayout(
        names, start, ",", len(names), quote, tuple(comments), tuple(texts), ("ARFF",)
    )


def make_dialect(suffix: str, **keys: Any) -> Dialect:
    """Make the dialect that the keys of ``data.source`` describe.

    Args:
        suffix: of the file; in an ARFF a question mark is a gap.
        keys: of `Dialect`.

    Raises:
        ConfigError: a sign is of no use.
    """
    for key, known in (("decimal", ("auto", ".", ",")), ("thousands", (None, *THOUSANDS))):
        if keys[key] not in known:
            listed = ", ".join("null" if sign is None else f"'{sign}'" for sign in known)
            raise ConfigError(f"data.source.{key} is '{keys[key]}': give one of {listed}")
    if keys["thousands"] is not None and keys["thousands"] == keys["decimal"]:
        raise ConfigError("data.source.thousands and data.source.decimal are the same sign")
    if keys["skip_lines"] < 0:
        raise ConfigError(f"data.source.skip_lines is {keys['skip_lines']}: give 0 or more")
    dialect = Dialect(**keys)
    if suffix == ".arff":
        dialect = replace(dialect, na_values=[*dialect.na_values, "?"])
    return dialect
