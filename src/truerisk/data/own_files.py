"""Files of the user's own: arrays (.npz), and tables of numbers and categories."""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.core.python_objects import take_object
from truerisk.data.encoder import LARGEST, MISSING, TableEncoder, build_matrix
from truerisk.data.samples import Expected, Samples
from truerisk.data.source_files import describe_minus_ones, find_path, read_labels
from truerisk.data.table_columns import (
    MAX_LABELS,
    describe_table,
    drop_gaps,
    find_counters,
    find_slips,
    find_texts,
    is_number_column,
    read_columns,
    read_table,
    spread_lists,
)
from truerisk.data.table_files import SUFFIXES
from truerisk.task import infer_task

if TYPE_CHECKING:
    from pandas import DataFrame


FRAME = "dataframe:"
"""How the path of a table begins that was given from Python; its digest follows."""


def arrays(
    path: str | None = None,
    x: str = "x",
    y: str = "y",
    x_test: str | None = "x_test",
    y_test: str | None = "y_test",
    task: str = "auto",
    classes: Sequence[Any] | None = None,
    unlabelled: str = "refuse",
    weight: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read samples from an .npz with inputs [n, …] and targets [n] or [n, outputs].

    A test set is used if the file has both of its arrays.

    Args:
        path: the file.
        x: name of the inputs.
        y: name of the targets.
        x_test: name of the test set's inputs, or None.
        y_test: name of its targets, or None.
        task: what is learned; ``auto`` as `truerisk.task.infer_task` says.
        classes: the class labels in their order; None for that of their values.
        unlabelled: whether samples without a label are to ``refuse`` or to ``drop``.
        weight: the column or array that says how much a sample counts in training.
        suited: tasks that the loss is for, which ``auto`` goes by.
        expected: what a run that has been trained knows of them.
        aside: names of arrays [n] that splits and weights go by; ``NAME_test`` is the test set's.

    Returns:
        Inputs as floating-point numbers, but for tokens, and targets as the task types them.

    Raises:
        ConfigError: no such file or array, an array that is not of finite numbers, or labels in the
            test set that the training set lacks.
    """
    found = _read_archive(path)
    known = classes
    if expected is not None and expected.classes:
        known = list(expected.classes)
    if expected is not None and expected.may_lack_targets and y not in found:
        values = expected.make_targets(_find_array(found, x, "x"))
    else:
        values = _find_array(found, y, "y")
    tests = _find_test_arrays(found, x_test, y_test)
    labels = read_labels(values, task, suited, unlabelled)
    learned, notes = labels.task, labels.notes
    inputs = read_inputs(_find_array(found, x, "x"), x, learned.integer_inputs)
    notes += describe_inputs(_find_array(found, x, "x"), x, learned.integer_inputs)
    _check_lengths(inputs, values)
    if learned.has_classes:
        _check_classes(labels.values, y)
    targets, names = learned.read_targets(labels.values, known)
    test, test_labels = None, None
    if tests is not None:
        test_labels = read_labels(tests[1], learned.name, suited, unlabelled, "data.source.y_test")
        test_inputs = read_inputs(tests[0], x_test, learned.integer_inputs)
        check_widths(inputs, test_inputs, x_test)
        _check_lengths(test_inputs, tests[1])
        test = (
            test_labels.select(test_inputs),
            learned.read_targets(test_labels.values, names)[0],
        )
    if weight is not None:
        aside = [*aside, weight]
    if expected is not None:  # other rows than those that were split
        aside = [name for name in aside if name in found]
    asides = {name: labels.select(_find_aside(found, name, len(inputs))) for name in aside}
    tested = {name: found[f"{name}_test"] for name in aside if f"{name}_test" in found}
    if test_labels is not None:
        tested = {name: test_labels.select(values) for name, values in tested.items()}
    return Samples(
        labels.select(inputs),
        targets,
        learned.name,
        test=test,
        class_names=names,
        asides=asides,
        test_asides=tested,
        notes=notes,
        **pick_weights(weight, asides, tested),
    )


def pick_weights(
    weight: str | None, asides: Mapping[str, Any], tested: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the weights of samples, and of the test set's, out of the columns that were set aside.

    Args:
        weight: the column of weights, if there is one.
        asides: columns by name.
        tested: the test set's.
    """
    sides = {"weights": asides, "test_weights": tested}
    return {
        side: read_weights(columns[weight], weight)
        for side, columns in sides.items()
        if weight is not None and weight in columns
    }


def read_weights(values: Any, column: str) -> Tensor:
    """Return how much samples count, float64 [n].

    Args:
        values: of the column.
        column: its name.

    Raises:
        ConfigError: they are not finite numbers of at least 0.
    """
    import numpy as np

    try:
        weights = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        raise ConfigError(f"data.source.weight: column '{column}' holds texts") from None
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ConfigError(
            f"data.source.weight: column '{column}' holds {weights[wrong[0]]} in row "
            f"{wrong[0] + 1}: give finite numbers of at least 0"
        )
    return torch.as_tensor(weights.copy())


def _find_aside(found: dict[str, Any], name: str, n: int) -> Any:
    values = found.get(name)
    if values is None or values.shape != (n,):
        shape = "no such array" if values is None else f"shape {values.shape}"
        raise ConfigError(
            f"data.source: an array '{name}' of shape ({n},) was asked for, and the file has "
            f"{shape}; {suggest(name, found)}"
        )
    return values


def _read_archive(path: str | None) -> dict[str, Any]:
    import numpy as np

    file = find_path(path, "data.source.path", "an .npz file")
    if file.suffix.lower() in SUFFIXES:
        raise ConfigError(
            f"data.source.path: {file} is a table, and data=arrays reads an .npz: take data=table "
            "data.source.target=COLUMN"
        )
    try:
        # a pickle in a file of somebody else's could run any code
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ConfigError(
                f"data.source.path: {file} is a single array {list(archive.shape)}, and an .npz is "
                "needed, with inputs and targets: numpy.savez('data.npz', x=…, y=…) makes one"
            )
        with archive:
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
    if values.ndim and not values.size:
        raise ConfigError(
            f"data.source: array '{name}' has shape {list(values.shape)}: no number is in it"
        )
    # kinds of NumPy: floating-point, signed, unsigned, truth values
    if not values.ndim:
        raise ConfigError(f"data.source: array '{name}' is one number: give a row a sample")
    if values.dtype.kind not in "fiub":
        raise ConfigError(
            f"data.source: array '{name}' holds {values.dtype}, not numbers{_find_text(values)}"
        )
    kind = "float32"
    if integers and values.dtype.kind in "iu":
        kind = "int64"
    elif values.dtype.itemsize == 8:
        kind = "float64"  # whole numbers of 64 bits too, as single precision would merge large ones
    # without a copy where the type is right: data may fill the memory
    x = torch.as_tensor(values.astype(kind, copy=False))
    # not by torch.isfinite, which takes twice as much memory again
    ends = [float(end) for end in x.aminmax()]
    if not all(map(math.isfinite, ends)):
        raise ConfigError(
            f"data.source: array '{name}' holds NaN or infinite numbers: remove or replace them"
        )
    if x.dtype == torch.float64 and max(map(abs, ends)) > LARGEST:
        sample = int(torch.nonzero(x.abs() > LARGEST)[0, 0])
        raise ConfigError(
            f"data.source: array '{name}' holds numbers such as {float(x[sample].abs().max()):g} "
            f"in row {sample + 1}, which cannot be computed with: correct or divide them"
        )
    return x.reshape(len(x), *(x.shape[1:] or (1,)))


def _find_text(values: Any) -> str:
    """Tell where an array has a first value that is no number; empty where none is found."""
    import numpy as np

    for place, value in np.ndenumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            where = ", ".join(str(k + 1) for k in place)
            return f": {value!r} stands at place {where}"
    return ""


def describe_inputs(values: Any, name: str, stay: bool) -> list[str]:
    """Tell of images with their channels last, and of whole numbers, which tokens may be.

    Args:
        values: the inputs as they were read.
        name: what messages call them.
        stay: whether the task leaves them as they are.
    """
    notes = []
    shape = list(values.shape[1:])
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4:
        first = [shape[2], *shape[:2]]
        notes.append(
            f"array '{name}' has samples {shape}: images with their channels last are to be "
            f"transposed to {first}, as convolutions take channels first"
        )
    # images are bytes
    if stay or values.dtype.kind not in "iu" or values.dtype.itemsize < 2:
        return notes
    return [
        *notes,
        f"array '{name}' holds whole numbers, which are standardized as quantities are: set "
        "data.standardize=none if they are tokens or places in a table (torch.nn.Embedding)",
    ]


def check_widths(x: Tensor, x_test: Tensor, name: str | None) -> None:
    """Refuse test inputs of another shape.

    Args:
        x: the inputs [n, …].
        x_test: those of the test set.
        name: what messages call these.

    Raises:
        ConfigError: they are.
    """
    if x.shape[1:] != x_test.shape[1:]:
        raise ConfigError(
            f"data.source: array '{name}' has samples of shape {list(x_test.shape[1:])}, and the "
            f"others are of shape {list(x.shape[1:])}"
        )


def _check_lengths(x: Tensor, y: Any) -> None:
    if len(x) != len(y):
        raise ConfigError(f"data.source gives {len(x)} inputs x but {len(y)} targets y")


def _check_classes(values: Any, name: str) -> None:
    """Refuse class labels that are fractions."""
    if values.dtype.kind == "f" and not all(float(v).is_integer() for v in values.flat):
        raise ConfigError(
            f"data.source: array '{name}' holds fractions, which are no class labels: "
            "set data.source.task=regression"
        )


def table(
    path: str | None = None,
    target: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    task: str = "auto",
    classes: Sequence[Any] | None = None,
    missing: str = "refuse",
    max_categories: int = 100,
    dates: str = "number",
    delimiter: str = "auto",
    decimal: str = "auto",
    thousands: str | None = None,
    encoding: str = "utf-8",
    skip_lines: int = 0,
    na_values: Sequence[str] = (),
    keep_default_na: bool = True,
    id: str | None = None,
    weight: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read samples from the rows of a table; features are x [n, d] once its encoder is fitted.

    Args:
        path: a CSV, ARFF or Parquet file; or what stands for a DataFrame that was given.
        target: the column to predict, or several.
        columns: to learn from; None for all but the target.
        drop: columns to leave out.
        categorical: columns of numbers that are categories; these and texts become one-hot.
        task: what is learned; ``auto`` as `truerisk.task.infer_task` says, where whole numbers of
            more than 20 kinds are no classes.
        classes: the class labels in their order; None for that of their values.
        missing: what to do about gaps: ``refuse`` the table, fill them with the training split's
            ``mean``, ``median`` or ``most_frequent`` value (categories always with the most
            frequent), or ``drop`` the rows.
        max_categories: different values a category column may have.
        dates: ``number`` for dates in text as days since 1970, ``day_first`` or ``month_first`` for
            what 03/04/2020 means, ``category`` for texts.
        delimiter: between the fields of a line; ``auto`` guesses it.
        decimal: sign before decimals, a point or a comma; ``auto`` guesses it.
        thousands: sign between groups of three digits; None for none, or as guessed.
        encoding: of the text.
        skip_lines: lines before the header; lines of one field there are found without.
        na_values: texts that stand for a gap.
        keep_default_na: whether ``NA``, ``null`` and the like do too.
        id: the column that names a row in predictions; it is not learned from.
        weight: the column or array that says how much a sample counts in training.
        suited: tasks that the loss is for, which ``auto`` goes by.
        expected: what a run that has been trained knows of the rows.
        aside: columns that splits and weights go by, which are no inputs.

    Returns:
        Raw columns, with the encoder that turns them into features.

    Raises:
        ConfigError: no such file or column, a malformed file, gaps that are refused, a number that
            is infinite, or a category column with more than ``max_categories`` different values.
    """
    if missing not in MISSING:
        raise ConfigError(f"data.source.missing is '{missing}': {suggest(str(missing), MISSING)}")
    digest = str(path).removeprefix(FRAME)
    if digest == path or path is None:
        file: Any = find_path(path, "data.source.path", "a CSV, ARFF or Parquet file")
    else:
        file = take_object("data", digest, "a DataFrame").frame
    read = read_table(
        file,
        categorical,
        dates,
        delimiter=delimiter,
        decimal=decimal,
        thousands=thousands,
        encoding=encoding,
        skip_lines=skip_lines,
        na_values=na_values,
        keep_default_na=keep_default_na,
    )
    frame, goals = read.frame, []
    if id is not None:
        drop = [*drop, *_check_columns(frame, [id], "id")]
    if _lacks_targets(frame, target, expected):
        frame = frame.drop(columns=[n for n in frame.columns if n in _list_targets(target)])
        # what was left out of the learning may be missing too
        drop = [name for name in drop if name in frame.columns]
    else:
        goals = _find_targets(frame, target)
    if weight is not None:
        aside = [*aside, weight]
    if expected is not None:
        aside = [name for name in aside if name in frame.columns]
    kept = frame[check_asides(frame.columns, aside)]
    left_out = [*drop, *(name for name in aside if name not in drop)]
    names = _choose_features(frame, goals, columns, left_out, categorical)
    if expected is not None and expected.columns:
        # lists have a column for each of their places
        learned_from = {re.sub(r"\[\d+\]$", "", name) for name in expected.columns}
        learned_from |= set(expected.columns)
        names = [name for name in names if name in learned_from] or names
    slips = find_slips(frame[[*names, *goals]], categorical)
    frame = spread_lists(frame, names).join(frame[goals])
    names = [name for name in frame.columns if name not in goals]
    whole = frame
    frame = drop_gaps(frame, goals, missing, read.gaps)
    texts = [n for n in names if n in categorical or not is_number_column(frame[n])]
    x, vocabulary = build_matrix(frame[names], texts, max_categories)
    encoder = TableEncoder(names, vocabulary, missing, dates, find_texts(frame, texts))
    values = expected.make_targets(frame) if expected and not goals else _read_goals(frame, goals)
    learned = infer_task(values, task, MAX_LABELS, suited)
    # columns of one-hot classes have their names
    known: Any = goals if len(goals) > 1 and learned.has_classes else classes
    if known is None and expected is not None and learned.name == expected.task:
        known = expected.classes or None
    y, class_names = learned.read_targets(values, known)
    phrase = learned.phrase
    if learned.has_classes and class_names:
        phrase = f"{phrase}, {len(class_names)} classes"
        if expected is None:
            slips += describe_minus_ones(values, None)
    notes = [
        describe_table(file, whole, frame, texts, goals, phrase, read, missing),
        *slips,
        *find_counters(frame, names),
    ]
    identities = {"row": frame.index.to_numpy()}
    if id is not None:
        identities[id] = read.frame[id].loc[frame.index].to_numpy()
    # rows with gaps may have been dropped
    asides = {str(name): kept.loc[frame.index, name].to_numpy() for name in kept}
    more: dict[str, Any] = {"encoder": encoder, "notes": notes, "identities": identities}
    more |= {"asides": asides, **pick_weights(weight, asides, {})}
    return Samples(x, y, learned.name, class_names=class_names, **more)


def _list_targets(target: str | Sequence[str] | None) -> list[str]:
    if target is None or isinstance(target, str):
        return [] if target is None else [target]
    return list(target)


def _lacks_targets(
    frame: DataFrame, target: str | Sequence[str] | None, expected: Expected | None
) -> bool:
    """Tell whether rows that are to be predicted have no target, or an empty column for it."""
    if expected is None or not expected.may_lack_targets:
        return False
    goals = [name for name in _list_targets(target) if name in frame.columns]
    return not goals or bool(frame[goals].isna().all(axis=None))


def _read_goals(frame: DataFrame, goals: list[str]) -> Any:
    """Return the targets [n] or [n, columns]; lists of labels as lists."""
    import numpy as np

    if len(goals) > 1:
        return frame[goals].to_numpy()
    goal = frame[goals[0]]
    if not is_number_column(goal):
        items = [v.tolist() if isinstance(v, np.ndarray) else v for v in goal]
        return np.array([None, *items], dtype=object)[1:]
    return goal.to_numpy()


def check_asides(columns: Iterable[str], aside: Sequence[str]) -> list[str]:
    """Refuse names of no column, by which splits or weights were to go.

    Args:
        columns: those there are.
        aside: those asked for.

    Raises:
        ConfigError: one is not there.
    """
    known = list(columns)
    for name in aside:
        if name not in known:
            raise ConfigError(
                f"data.split, data.source: the data have no column '{name}'; {suggest(name, known)}"
            )
    return list(aside)


def _check_columns(frame: DataFrame, names: Sequence[str], key: str) -> list[str]:
    for name in names:
        if name not in frame.columns:
            hint = suggest(str(name), frame.columns)
            if all(re.fullmatch(r"[+-]?\d+([.,]\d*)?", str(known)) for known in frame.columns):
                hint = "its first line holds numbers: give it a header"
            if len(frame.columns) == 1 and re.search(r"[^\w.\s-]", str(frame.columns[0])):
                hint = (
                    f"its lines are read as one field each, '{frame.columns[0]}': set "
                    "data.source.delimiter to the sign between fields"
                )
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
    for key, listed in (("columns", columns or ()), ("drop", drop)):
        if twice := [name for name in listed if name in goals]:
            raise ConfigError(
                f"data.source.{key} names '{twice[0]}', which is data.source.target: leave it out "
                "of one of them"
            )
    names = [name for name in wanted if name not in goals and name not in drop]
    if not names:
        raise ConfigError("data.source: no column is left beside the target to learn from")
    return names


def encode_frame(frame: DataFrame, state: Mapping[str, Any]) -> Tensor:
    """Return the features [n, d] of a table's rows, as a run has fitted them.

    Args:
        frame: with the columns that the run has learned from; others are passed over.
        state: of its `TableEncoder`.

    Raises:
        ConfigError: a column is missing, or holds texts where numbers were.
    """
    parts = {part["name"]: part for part in state["columns"]}
    frame = frame.rename(columns=str)
    _check_columns(frame, list(parts), "columns")
    words = [name for name, part in parts.items() if "categories" in part]
    frame, _ = read_columns(frame[list(parts)], words, state.get("dates", "number"))
    texts = [
        n for n, part in parts.items() if "categories" in part or not is_number_column(frame[n])
    ]
    x, vocabulary = build_matrix(frame, texts, max(1, len(frame)))
    odd = find_texts(frame.reset_index(drop=True), texts)
    encoder = TableEncoder(list(parts), vocabulary, "mean", odd=odd)
    encoder.load_state_dict(state)
    for line in encoder.describe_unseen(x, "given"):
        warnings.warn(line, stacklevel=4)  # where inputs were given
    return encoder(x)
