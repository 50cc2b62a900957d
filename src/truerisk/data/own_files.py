"""Files of the user's own: arrays (.npz), and tables (CSV, Parquet) of numbers and categories."""

from __future__ import annotations

import zipfile
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


def arrays(
    path: str | None = None,
    x: str = "x",
    y: str = "y",
    x_test: str | None = "x_test",
    y_test: str | None = "y_test",
    task: str = "auto",
) -> Samples:
    """Read samples from an .npz with inputs [n, …] and targets [n] or [n, outputs].

    A test set is used if the file has both of its arrays.

    Args:
        path: the file.
        x: name of the inputs.
        y: name of the targets.
        x_test: name of the test set's inputs, or None.
        y_test: name of its targets, or None.
        task: what is learned; ``auto`` takes floating-point targets for a regression and all others
            for a classification.

    Returns:
        Inputs as floating-point numbers, but for tokens, and targets as the task types them.

    Raises:
        ConfigError: no such file or array, an array that is not of finite numbers, or labels in the
            test set that the training set lacks.
    """
    found = _read_archive(path)
    values = _find_array(found, y, "y")
    tests = _find_test_arrays(found, x_test, y_test)
    learned = infer_task(values, task)
    inputs = read_inputs(_find_array(found, x, "x"), x, learned.integer_inputs)
    if learned.has_classes:
        _check_classes(values, y)
    targets, names = learned.read_targets(values)
    test = None
    if tests is not None:
        test = (
            read_inputs(tests[0], x_test, learned.integer_inputs),
            learned.read_targets(tests[1], names)[0],
        )
    return Samples(inputs, targets, learned.name, test=test, class_names=names)


def _read_archive(path: str | None) -> dict[str, Any]:
    import numpy as np

    file = find_path(path, "data.source.path", "an .npz file")
    try:
        # a pickle in a file of somebody else's could run any code
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"data.source.path: {file} is not an .npz of plain number arrays "
            f"({first_line(error)}); write it with numpy.savez"
        ) from None


def _find_array(found: dict[str, Any], name: str, key: str) -> Any:
    if name not in found:
        raise ConfigError(
            f"data.source.{key}: the file has no array '{name}'; {suggest(name, found)}"
        )
    return found[name]


def _find_test_arrays(
    found: dict[str, Any], x: str | None, y: str | None
) -> tuple[Any, Any] | None:
    """Return the test set's inputs and targets; None where the file has neither."""
    for name, key in ((x, "x_test"), (y, "y_test")):
        # a name that was chosen must be there; the default one may be missing
        if name not in (None, key):
            _find_array(found, str(name), key)
    has = [x in found, y in found]
    if any(has) and not all(has):
        raise ConfigError(
            f"data.source: a test set needs both arrays '{x}' and '{y}', and the file has only "
            "one; set data.source.x_test=null data.source.y_test=null to do without"
        )
    if not all(has):
        return None
    return found[str(x)], found[str(y)]


def read_inputs(values: Any, name: str | None, integers: bool) -> Tensor:
    """Return inputs [n, …] as floating-point numbers, or whole ones; [n] becomes [n, 1].

    Args:
        values: an array.
        name: what messages call it.
        integers: whether whole numbers stay so.

    Raises:
        ConfigError: they are not all finite numbers.
    """
    # kinds of NumPy: floating-point, signed, unsigned, truth values
    if values.dtype.kind not in "fiub" or not values.ndim:
        raise ConfigError(f"data.source: array '{name}' holds {values.dtype}, not numbers")
    kind = "float32"
    if integers and values.dtype.kind in "iu":
        kind = "int64"
    elif values.dtype.itemsize == 8:
        kind = "float64"  # whole numbers of 64 bits too, as single precision would merge large ones
    # without a copy where the type is right: data may fill the memory
    x = torch.as_tensor(values.astype(kind, copy=False))
    if not bool(torch.isfinite(x).all()):
        raise ConfigError(
            f"data.source: array '{name}' holds NaN or infinite numbers: remove or replace them"
        )
    return x.reshape(len(x), *(x.shape[1:] or (1,)))


def _check_classes(values: Any, name: str) -> None:
    """Refuse class labels that are fractions."""
    if values.dtype.kind == "f" and not all(float(v).is_integer() for v in values.flat):
        raise ConfigError(
            f"data.source: array '{name}' holds fractions, which are no class labels: "
            "set data.source.task=regression"
        )


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
    # 3.0 and 3 are one category, whether or not a gap has made its column floats
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
