"""Where documents come from: files, a column, or Python's own reference."""

from __future__ import annotations

import glob
import hashlib
import json
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.data.hub import open_splits, select_split
from truerisk.data.source_files import find_path
from truerisk.data.table_columns import read_table
from truerisk.data.table_files import SUFFIXES, Dialect

CHUNK = 2**20
"""Characters of a file that are read at a time, where it is cut into documents."""
COLUMNAR = (*SUFFIXES, ".jsonl", ".json", ".ndjson")
"""Suffixes of files of which a column is read."""
NOWHERE = "\x1f"
"""A sign that no text has, for a delimiter where a row is one field."""
LEAST = 200
"""Characters that a section of Python's reference has at least to be a document."""

Reader = Callable[[], Iterator[str]]
"""Begins to read the documents anew, in their order."""


class Documents:
    """Texts that are read one after another, as often as they are asked for, and never held.

    Blank ones are passed over. They stand for inputs until they are cut into sequences.

    Args:
        reader: begins to read them.
        shape: of the sequences that they will become.

    Attributes:
        sizes: bytes of UTF-8 of each, [n], in a type no wider than they need.
        digest: of all that is in them, and of where each ends.

    >>> documents = Documents(lambda: iter(["one", "  ", "three"]), (8,))
    >>> len(documents), list(documents.select_texts([1])), documents.sizes.tolist()
    (2, ['three'], [3, 5])
    """

    def __init__(self, reader: Reader, shape: tuple[int, ...]) -> None:
        self.reader, self.shape = reader, shape
        sizes, found = array("q"), hashlib.sha256()
        self.blank = 0
        for text in self.reader():
            if not text or text.isspace():
                self.blank += 1
                continue
            content = text.encode("utf-8", "surrogatepass")
            sizes.append(len(content))
            # with its length, or other cuts of the same text would have the same digest
            found.update(len(content).to_bytes(8, "little"))
            found.update(content)
        known = np.frombuffer(sizes, dtype=np.int64)
        self.sizes = known.astype(np.min_scalar_type(max(sizes, default=0)))
        self.digest = found.hexdigest()

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Any:
        raise TypeError("documents are read in their order")

    def read_texts(self) -> Iterator[str]:
        """Read all documents, in their order."""
        return (text for text in self.reader() if text and not text.isspace())

    def select_texts(self, rows: Sequence[int] | np.ndarray) -> Iterator[str]:
        """Read some documents, in their order.

        Args:
            rows: their numbers.
        """
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        return (text for text, wanted in zip(self.read_texts(), chosen, strict=True) if wanted)


def find_reader(
    path: str | None,
    column: str | None,
    separator: str | None,
    encoding: str,
    name: str | None,
    split: str,
) -> tuple[Reader, list[str]]:
    """Find out how documents are to be read, and tell it in a line.

    Args:
        path: a file, a pattern, a folder, or a data set's name; None for Python's reference.
        column: of texts.
        separator: between the documents of a file; None where a file is one.
        encoding: of the files.
        name: of a data set's configuration.
        split: of a data set.

    Raises:
        ConfigError: nothing is there, or it cannot be read so.
    """
    if path is None:
        if column is not None:
            raise ConfigError("data.source.column is set, and data.source.path is not")
        return read_reference, [f"the text is the reference that comes with {_name_python()}"]
    if column is not None:
        return _find_column(path, column, encoding, name, split), []
    files = list_files(path)
    for file in files:
        if file.suffix.lower() in COLUMNAR and file.suffix.lower() != ".txt":
            raise ConfigError(
                f"data.source.path: {file} is a table: name its column of texts, as in "
                "data.source.column=text"
            )
    if separator is not None:
        # a command line has these two letters for a line's end
        separator = separator.replace("\\n", "\n").replace("\\t", "\t")
        if not separator:
            raise ConfigError("data.source.separator is empty: give a text, or null for none")
    return partial(read_files, files, separator, encoding), []


def list_files(path: str) -> list[Path]:
    """List the files that a path, a pattern or a folder stands for, by name; no hidden ones.

    Args:
        path: of a file or folder, or a pattern as ``texts/**/*.txt``.

    Raises:
        ConfigError: there is none.
    """
    if glob.has_magic(path) and not Path(path).expanduser().exists():
        pattern = str(Path(path).expanduser())
        found = sorted(map(Path, glob.glob(pattern, recursive=True)))
        files = [file for file in found if file.is_file()]
    else:
        place = find_path(path, "data.source.path", "text files")
        if not place.is_dir():
            return [place]
        below = sorted(file for file in place.rglob("*") if file.is_file())
        parts = ((file, file.relative_to(place).parts) for file in below)
        files = [file for file, names in parts if not any(n.startswith(".") for n in names)]
    if not files:
        raise ConfigError(f"data.source.path: there is no file at {path}")
    return files


def read_files(files: Iterable[Path], separator: str | None, encoding: str) -> Iterator[str]:
    """Read documents: each file is one, or has several.

    Args:
        files: of texts.
        separator: between documents of a file; None for none.
        encoding: of the files.

    Raises:
        ConfigError: a file is not in that encoding.
    """
    kind = re.sub(r"(?i)^utf-?8$", "utf-8-sig", encoding)  # a mark at the beginning is no text
    for file in files:
        try:
            with file.open(encoding=kind) as stream:
                # a file of many documents may be larger than memory
                if separator is None:
                    yield stream.read()
                else:
                    yield from cut_documents(iter(partial(stream.read, CHUNK), ""), separator)
        except LookupError:
            raise ConfigError(f"data.source.encoding: there is no encoding '{encoding}'") from None
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"data.source.path: {file} cannot be read as {encoding} ({first_line(error)}): set "
                "data.source.encoding, or leave it out"
            ) from None


def cut_documents(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """Cut a text that comes in chunks where a separator stands.

    Args:
        chunks: of the text.
        separator: a text.

    >>> list(cut_documents(["a-", "-b--c-"], "--"))
    ['a', 'b', 'c-']
    """
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    yield rest


def _find_column(path: str, column: str, encoding: str, name: str | None, split: str) -> Reader:
    """Return the reader of a column of a file, or of a Hugging Face data set."""
    place = Path(path).expanduser()
    suffix = place.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return partial(read_lines, find_path(path, "data.source.path", "a file"), column, encoding)
    if suffix in (".parquet", ".pq"):
        return partial(read_row_groups, find_path(path, "data.source.path", "a file"), column)
    if suffix in COLUMNAR or path.lower().endswith(".gz"):
        file = find_path(path, "data.source.path", "a table")
        if (texts := _read_only_column(file, column, encoding)) is not None:
            return lambda: iter(texts)
        # a text that says "None" or "NA" is no gap
        dialect = asdict(Dialect(encoding=encoding, keep_default_na=False))
        frame = read_table(file, [column], "category", **dialect).frame
        if column not in frame.columns:
            raise _lacks_column(column, frame.columns)
        # a gap is no text, which is counted
        return lambda: ("" if text != text else str(text) for text in frame[column])
    # neither of these: a name on the hub, or a folder that was saved
    rows = select_split(open_splits(path, name, None, None), split)
    if column not in rows.features:
        raise _lacks_column(column, rows.features)
    return lambda: (text or "" for text in rows[column])


def _read_only_column(file: Path, column: str, encoding: str) -> list[str] | None:
    """Read the texts of a table whose header is the column's name alone; None for another table.

    Its rows have one field each, quoted or not: blanks and commas in them separate nothing.
    """
    import pandas as pd

    read = partial(
        pd.read_csv,
        file,
        sep=NOWHERE,
        encoding=encoding,
        dtype=str,
        na_filter=False,
        index_col=False,
    )
    try:
        if [name.strip() for name in read(nrows=0).columns] != [column]:
            return None
        return list(read().iloc[:, 0])
    except (OSError, ValueError, LookupError, EOFError):  # told with its line as the table is read
        return None


def _lacks_column(column: str, columns: Iterable[Any]) -> ConfigError:
    hint = suggest(column, list(map(str, columns)))
    return ConfigError(f"data.source.column: there is no column '{column}'; {hint}")


def read_lines(file: Path, column: str, encoding: str) -> Iterator[str]:
    """Read a column of a file with a JSON object in each line.

    Args:
        file: its path.
        column: a key of the objects; those that lack it, or have null, are passed over.
        encoding: of the file.

    Raises:
        ConfigError: a line is no object, or no line has the key.
    """
    keys: dict[str, None] = {}
    with file.open(encoding=encoding) as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
                keys |= dict.fromkeys(row)
                text = row.get(column)
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"data.source.path: line {number} of {file} is no JSON object "
                    f"({first_line(error)}): it takes one a line"
                ) from None
            if text is not None:
                yield str(text)
    # a key may be missing here and there, but not everywhere
    if column not in keys:
        raise _lacks_column(column, keys)


def read_row_groups(file: Path, column: str) -> Iterator[str]:
    """Read a column of a Parquet file, some rows at a time.

    Args:
        file: its path.
        column: of texts; gaps are passed over.

    Raises:
        ConfigError: pyarrow or the column is missing.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ConfigError(
            "reading Parquet needs pyarrow: pip install 'truerisk[parquet]'"
        ) from None
    try:
        table = ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.source.path: {file} cannot be read as .parquet ({first_line(error)})"
        ) from None
    if column not in table.schema_arrow.names:
        raise _lacks_column(column, table.schema_arrow.names)
    for batch in table.iter_batches(1024, columns=[column]):
        yield from (str(text) for text in batch.column(0).to_pylist() if text is not None)


# --- the text that every Python has -------------------------------------------------------------


def read_reference() -> Iterator[str]:
    """Read the sections of Python's language reference, as ``help`` has them.

    Several topics of it repeat whole parts of others: each paragraph is read once, or what is
    trained on would be tested on.

    Raises:
        ConfigError: this Python comes without them, as some of a system's own do.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError(
            f"data.source.path is not set, and {_name_python()} comes without the reference that "
            "stands for it (pydoc_data): give text files"
        ) from None
    seen: set[str] = set()
    # the longest first: they have parts in their order that others have alone
    for key in sorted(topics, key=lambda key: (-len(topics[key]), key)):
        for section in cut_sections(topics[key]):
            fresh = []
            for paragraph in section.split("\n\n"):
                if paragraph.strip() not in seen:
                    fresh.append(paragraph)
                    seen.add(paragraph.strip())
            text = "\n\n".join(fresh).strip()
            if len(text) >= LEAST:
                yield text + "\n"


def cut_sections(topic: str) -> Iterator[str]:
    """Cut a text before each heading, a line with a line of signs below it.

    Args:
        topic: the text.

    >>> list(cut_sections("One\\n===\\n\\na\\n\\nTwo\\n***\\n\\nb"))
    ['One\\n===\\n\\na\\n\\n', 'Two\\n***\\n\\nb']
    """
    heads = re.finditer(r"^\S.*\n([*=\-~^\"])\1{2,}$", topic, re.MULTILINE)
    starts = sorted({0, *(head.start() for head in heads), len(topic)})
    return (topic[a:b] for a, b in pairwise(starts))


def _name_python() -> str:
    return "Python " + ".".join(map(str, sys.version_info[:3]))
