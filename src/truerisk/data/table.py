"""A CSV or Parquet file, with numbers and categories in its columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.data.encoder import MISSING, TableEncoder
from truerisk.data.samples import Samples
from truerisk.data.source_files import find_path
from truerisk.task import infer_task
from truerisk.task.classification import label_name

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MAX_LABELS = 20


def table(
    path: str | None = None,
    target: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    task: str = "auto",
    missing: str = "refuse",
    max_categories: int = 100,
    delimiter: str = ",",
) -> Samples:
    """Read samples from the rows of a table; features are x [n, d] once its encoder is fitted.

    Args:
        path: a CSV or Parquet file.
        target: the column to predict, or several.
        columns: to learn from; None for all but the target.
        drop: columns to leave out.
        categorical: columns of numbers that are categories; these and texts become one-hot.
        task: what is learned; ``auto`` takes texts, truth values and whole numbers of at most 20
            kinds for classes, other targets for a regression.
        missing: what to do about gaps: ``refuse`` the table, fill them with the training split's
            ``mean``, ``median`` or ``most_frequent`` value (categories always with the most
            frequent), or ``drop`` the rows.
        max_categories: different values a category column may have.
        delimiter: between the columns of a CSV.

    Returns:
        Raw columns, with the encoder that turns them into features.

    Raises:
        ConfigError: no such file or column, a malformed file, gaps that are refused, a number that
            is infinite, or a category column with more than ``max_categories`` different values.
    """
    if missing not in MISSING:
        raise ConfigError(f"data.source.missing is '{missing}': {suggest(str(missing), MISSING)}")
    frame = _read_table(
        find_path(path, "data.source.path", "a CSV or Parquet file"), delimiter, categorical
    )
    goals = _find_targets(frame, target)
    names = _choose_features(frame, goals, columns, drop, categorical)
    frame = _without_gaps(frame[[*names, *goals]], goals, missing)
    texts = [n for n in names if n in categorical or not _is_number(frame[n])]
    x, vocabulary = _build_matrix(frame[names], texts, max_categories)
    encoder = TableEncoder(names, vocabulary, missing)
    if len(goals) > 1:
        values = frame[goals].to_numpy()
    elif _is_number(frame[goals[0]]):
        values = frame[goals[0]].to_numpy()
    else:
        values = frame[goals[0]].to_numpy(dtype=object)
    learned = infer_task(values, task, MAX_LABELS)
    y, classes = learned.read_targets(values)
    return Samples(x, y, learned.name, class_names=classes, encoder=encoder)


def _read_table(file: Path, delimiter: str, categorical: Sequence[str]) -> DataFrame:
    import pandas as pd

    suffix = file.suffix
    if suffix == ".gz":  # as in data.csv.gz
        suffix = file.with_suffix("").suffix
    try:
        if suffix in (".parquet", ".pq"):
            frame = pd.read_parquet(file)
        elif suffix in (".csv", ".tsv", ".txt"):
            if suffix == ".tsv":
                delimiter = "\t"
            # As text, so that a gap does not turn the category 3 into 3.0.
            # Whole columns at a time, as parts of one could be read as numbers and others as texts.
            kinds = dict.fromkeys(categorical, str)
            frame = pd.read_csv(file, sep=delimiter, dtype=kinds, low_memory=False)
        else:
            raise ConfigError(f"data.source.path: {file} is neither .csv, .tsv, .txt nor .parquet")
    except ImportError:
        raise ConfigError(
            "reading Parquet needs pyarrow: pip install 'truerisk[parquet]'"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.source.path: {file} cannot be read as {suffix} ({first_line(error)})"
        ) from None
    # pandas takes a file that has a header alone for a table
    if frame.empty:
        raise ConfigError(f"data.source.path: {file} has no rows")
    return frame.rename(columns=str)  # Parquet may number them


def _check_columns(frame: DataFrame, names: Sequence[str], key: str) -> list[str]:
    for name in names:
        if name not in frame.columns:
            hint = suggest(str(name), frame.columns)
            raise ConfigError(f"data.source.{key}: the table has no column '{name}'; {hint}")
    return list(names)


def _find_targets(frame: DataFrame, target: str | Sequence[str] | None) -> list[str]:
    if target is None:
        raise ConfigError(
            "data.source.target is not set: give the column to predict; "
            f"known: {', '.join(frame.columns[:20])}"
        )
    if isinstance(target, str):
        target = [target]
    return _check_columns(frame, target, "target")


def _choose_features(
    frame: DataFrame,
    goals: list[str],
    columns: Sequence[str] | None,
    drop: Sequence[str],
    categorical: Sequence[str],
) -> list[str]:
    _check_columns(frame, drop, "drop")
    _check_columns(frame, categorical, "categorical")
    wanted = list(frame.columns)
    if columns is not None:
        wanted = _check_columns(frame, columns, "columns")
    names = [name for name in wanted if name not in goals and name not in drop]
    if not names:
        raise ConfigError("data.source: no column is left beside the target to learn from")
    return names


def _is_number(column: Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column))


def _without_gaps(frame: DataFrame, goals: list[str], missing: str) -> DataFrame:
    """The table with its gaps dropped or refused, or left for the encoder to fill."""
    gaps = frame.isna().sum()
    if missing == "drop":
        kept = frame.dropna()
        if kept.empty:
            raise ConfigError("data.source.missing=drop: every row has a gap; fill them instead")
        return kept
    bad = {n: int(k) for n, k in gaps.items() if k and (missing == "refuse" or n in goals)}
    if bad:
        listed = ", ".join(f"'{name}' ({count})" for name, count in bad.items())
        ways = "drop" if set(bad) <= set(goals) else "mean, median, most_frequent or drop"
        raise ConfigError(
            f"data.source.missing: values are missing in the columns {listed}; set "
            f"data.source.missing to {ways}"
        )
    return frame


def _build_matrix(
    frame: DataFrame, texts: list[str], max_categories: int
) -> tuple[Tensor, dict[str, list[str]]]:
    """The table as float64 [n, columns], categories as places in the vocabulary, gaps as NaN."""
    vocabulary: dict[str, list[str]] = {}
    columns = []
    for name in frame.columns:
        if name in texts:
            codes, vocabulary[name] = _encode_texts(frame[name], max_categories)
        else:
            codes = _read_numbers(frame[name])
        # copied, as pandas may hand out memory that must not be written to
        columns.append(torch.as_tensor(codes.copy()))
    return torch.stack(columns, 1), vocabulary


def _read_numbers(column: Series) -> Any:
    import numpy as np

    values = column.to_numpy(dtype="float64", na_value=np.nan)
    if np.isinf(values).any():
        raise ConfigError(f"data.source: column '{column.name}' holds infinite numbers")
    return values


def _encode_texts(column: Series, max_categories: int) -> tuple[Any, list[str]]:
    import numpy as np
    import pandas as pd

    # as categories, dates of new rows would all be unknown
    if pd.api.types.is_datetime64_any_dtype(column):
        raise ConfigError(
            f"data.source: column '{column.name}' holds dates: turn it into numbers, or leave it "
            "out with data.source.drop"
        )
    texts = column.map(label_name, na_action="ignore")
    codes, words = pd.factorize(texts, sort=True)
    if len(words) > max_categories:
        raise ConfigError(
            f"data.source: column '{column.name}' holds texts of {len(words)} kinds, such as "
            f"'{words[0]}': leave it out with data.source.drop, correct what should be a number, "
            "or raise data.source.max_categories"
        )
    # pandas writes -1 for a gap
    return np.where(codes < 0, np.nan, codes), [str(word) for word in words]
