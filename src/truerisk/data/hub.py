"""Any Hugging Face data set, by its name or from local files."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, getproxies, urlopen

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.data.own_files import check_asides, pick_weights
from truerisk.data.samples import Expected, Inputs, Samples
from truerisk.data.source_files import Labelled, find_path, read_labels
from truerisk.task import Task, get_task
from truerisk.task.classification import label_name

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
ANSWER = 5.0
"""Seconds in which the hub must answer."""
WHITE = {"I": 65535.0, "I;16": 65535.0, "F": 1.0}


class Images:
    """Images of one column, decoded one at a time to float32 (c, h, w) in [0, 1].

    Args:
        rows: of a Hugging Face data set.
        column: its images.
        resize: (height, width), or None for those of the first image.
        mode: of Pillow, such as ``L``; None for that of each image.

    Raises:
        ConfigError: an image has another shape than the first.
    """

    def __init__(
        self, rows: Any, column: str, resize: tuple[int, int] | None, mode: str | None
    ) -> None:
        self.rows, self.column, self.resize, self.mode = rows, column, resize, mode
        self.shape = tuple(self._decode_image(0).shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        image = self._decode_image(index)
        if tuple(image.shape) != self.shape:
            raise ConfigError(
                f"data.source.x: image {index} has shape {tuple(image.shape)}, the first one "
                f"{self.shape}; set data.source.resize to a height and width, and "
                "data.source.mode to L or RGB"
            )
        return image

    def _decode_image(self, index: int) -> Tensor:
        import numpy as np

        image = self.rows[int(index)][self.column]
        image = image.convert(self.mode or _choose_mode(image))
        if self.resize is not None:
            image = image.resize(self.resize[::-1])  # Pillow takes width, height
        # [h, w] or [h, w, c], which a convolution wants as [c, h, w]
        pixels = np.asarray(image, dtype="float32") / WHITE.get(image.mode, 255.0)
        return torch.as_tensor(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _choose_mode(image: Any) -> str:
    if image.mode in WHITE:
        return image.mode
    if image.mode in ("1", "L"):
        return "L"
    return "RGB"


def hub(
    path: str | None = None,
    name: str | None = None,
    split: str = "train",
    test_split: str | None = "auto",
    x: str | Sequence[str] | None = None,
    y: str | Sequence[str] = "label",
    task: str = "auto",
    resize: int | Sequence[int] | None = None,
    mode: str | None = None,
    revision: str | None = None,
    cache: str | None = None,
    classes: Sequence[Any] | None = None,
    unlabelled: str = "refuse",
    weight: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read a Hugging Face data set: images (c, h, w) in [0, 1], or columns of numbers (d,).

    Args:
        path: a name on the hub, a Parquet, CSV or JSON file, or a folder.
        name: of the data set's configuration.
        split: to learn from.
        test_split: the test set; ``auto`` takes the split "test" if there is one, None none.
        x: an image column, a column of equally long lists, or several columns of numbers; None
            takes the first image column, or else all columns of numbers beside ``y``.
        y: the column of targets, or several of them: quantities, or 0 and 1.
        task: what is learned; ``auto`` as `truerisk.task.infer_task` says.
        resize: side of the images, or [height, width].
        mode: of the images, such as ``L`` or ``RGB``; None for that of each.
        revision: of the data set on the hub.
        cache: folder of what is downloaded.
        classes: the class labels in their order; None for that of their values, or the data set's.
        unlabelled: whether samples without a label are to ``refuse`` or to ``drop``.
        weight: the column that says how much a sample counts in training.
        suited: tasks that the loss is for, which ``auto`` goes by.
        expected: what a run that has been trained knows of the samples.
        aside: columns that splits and weights go by, which are no inputs.

    Raises:
        ConfigError: the library or the data set is missing, no such split or column, or values that
            are not numbers.
    """
    parts = open_splits(path, name, revision, cache)
    rows = select_split(parts, split)
    tests = _get_test_split(parts, split, test_split)
    goals = [y] if isinstance(y, str) else list(y)
    if unknown := expected is not None and expected.may_lack_targets:
        unknown = not any(goal in rows.features for goal in goals)
    if unknown:
        tests, label_names = None, None
    else:
        for goal in goals:
            _check_column(rows, goal, "y")
        label_names = _find_label_names(rows, goals)
    asked = suited if task == "auto" else [task]
    as_lists = any(get_task(one).takes_lists for one in asked)
    if label_names and task == "auto" and not _holds_lists(rows, goals[0]):
        task = "classification"
    # a ClassLabel holds numbers and knows their names, and has -1 where there is none
    read = partial(read_labels, suited=suited, unlabelled=unlabelled, known=bool(label_names))
    if unknown:
        assert expected is not None
        labels = read(expected.make_targets(rows), expected.task)
    else:
        labels = read(_read_targets_of(rows, goals, as_lists), task)
    learned, rows = labels.task, _select_rows(rows, labels)
    if weight is not None:
        aside = [*aside, weight]
    if expected is not None:  # other rows than those that were split
        aside = [name for name in aside if name in rows.features]
    asides = {name: _read_column(rows, name) for name in check_asides(rows.features, aside)}
    chosen = _choose_columns(rows, x, goals, aside)
    inputs = _read_inputs(rows, chosen, resize, mode)
    order = classes and list(classes)
    if order is None and expected is not None and learned.name == expected.task:
        order = list(expected.classes) or None
    if order is None and len(goals) > 1 and learned.has_classes:  # one-hot columns have the names
        order = goals
    targets, names = _read_targets(learned, labels.values, label_names, order)
    test, tested = None, {}
    if tests is not None:
        own = read(
            _read_targets_of(tests, goals, as_lists), learned.name, key="data.source.test_split"
        )
        tests = _select_rows(tests, own)
        test_x = _read_inputs(tests, chosen, resize, mode)
        test = test_x, _read_targets(learned, own.values, label_names, names)[0]
        tested = {name: _read_column(tests, name) for name in aside if name in tests.features}
    return Samples(
        inputs,
        targets,
        learned.name,
        test=test,
        class_names=names,
        asides=asides,
        test_asides=tested,
        notes=labels.notes,
        **pick_weights(weight, asides, tested),
    )


def _select_rows(rows: Any, labels: Labelled) -> Any:
    if labels.rows is None:
        return rows
    return rows.select(labels.rows)


def open_splits(
    path: str | None, name: str | None, revision: str | None, cache: str | None
) -> dict[str, Any]:
    """Load a data set with all its splits, by their names.

    Args:
        path: a name on the hub, a file, or a folder.
        name: of its configuration.
        revision: on the hub.
        cache: folder of what is downloaded.

    Raises:
        ConfigError: the library or the data set is missing.
    """
    try:
        import datasets  # takes a second, which other data need not wait for
    except ImportError:
        raise ConfigError(
            "data=hub needs the datasets library: pip install 'truerisk[hub]'"
        ) from None
    if path is None:
        raise ConfigError(
            "data.source.path is not set: give a data set's name on the Hugging Face hub, or a "
            "local path, as in data.source.path=ylecun/mnist"
        )
    local = Path(path).expanduser()
    if local.suffix in BUILDERS or path.startswith((".", "/", "~")):
        local = find_path(path, "data.source.path", "a data set")
    try:
        loaded = _open_dataset(datasets, path, local, name=name, revision=revision, cache=cache)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"data.source.path: the data set '{path}' cannot be loaded ({first_line(error)})"
        ) from None
    # a file, or a folder saved without splits, is one data set
    if not isinstance(loaded, dict):
        return {"train": loaded}
    return dict(loaded)


def _open_dataset(
    datasets: Any,
    path: str,
    local: Path,
    name: str | None,
    revision: str | None,
    cache: str | None,
) -> Any:
    if local.is_file():
        builder = BUILDERS.get(local.suffix)
        if builder is None:
            raise ConfigError(f"data.source.path: {path} is none of {', '.join(BUILDERS)}")
        return datasets.load_dataset(builder, data_files=str(local), cache_dir=cache)
    if (local / "state.json").exists() or (local / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(local))
    if local.is_dir():
        path = str(local)
        return datasets.load_dataset(path, name, revision=revision, cache_dir=cache)
    with _asking_once(datasets) as reached:
        try:
            return datasets.load_dataset(path, name, revision=revision, cache_dir=cache)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
            if reached:
                raise
            raise ConfigError(
                f"data.source.path: the data set '{path}' cannot be loaded: it is no file or "
                "folder here and not in the cache of the datasets library, and the Hugging Face "
                "hub cannot be reached from this machine"
            ) from None


@contextmanager
def _asking_once(datasets: Any) -> Iterator[bool]:
    """Take what is in the cache where the hub cannot be reached, instead of asking for 49 s.

    Yields:
        Whether it can be.
    """
    from huggingface_hub import constants

    reached = constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not reached:
        # both libraries read the variable when they are imported, and these afterwards
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield reached
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    """Ask once, through whichever proxy the environment names, whether anybody answers."""
    if any(proxy.startswith("socks") for proxy in getproxies().values()):
        return True  # of which urllib knows nothing
    try:
        urlopen(Request(address, method="HEAD"), timeout=ANSWER).close()
    except HTTPError:
        return True
    except OSError as error:
        # with certificates that the libraries may know, and Python does not
        return isinstance(getattr(error, "reason", error), ssl.SSLError)
    return True


def select_split(parts: dict[str, Any], split: str, key: str = "split") -> Any:
    """Return a split of a data set.

    Args:
        parts: its splits by name.
        split: the one asked for.
        key: that asks for it.

    Raises:
        ConfigError: there is none of that name, or it is empty.
    """
    if split not in parts:
        hint = suggest(split, parts)
        raise ConfigError(f"data.source.{key}: the data set has no split '{split}'; {hint}")
    if not len(parts[split]):
        raise ConfigError(f"data.source.{key}: the split '{split}' has no rows")
    return parts[split]


def _get_test_split(parts: dict[str, Any], split: str, test_split: str | None) -> Any:
    if test_split is None:
        return None
    if test_split != "auto":
        return select_split(parts, test_split, "test_split")
    if split == "test":
        return None  # or the run would be tested on what it learned from
    return parts.get("test")


def _check_column(rows: Any, name: str, key: str) -> str:
    if name not in rows.features:
        hint = suggest(name, rows.features)
        raise ConfigError(f"data.source.{key}: the data set has no column '{name}'; {hint}")
    return name


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_number(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "float", "bool"))


def _choose_columns(
    rows: Any, x: str | Sequence[str] | None, goals: Sequence[str], aside: Sequence[str] = ()
) -> list[str]:
    if x is not None:
        if isinstance(x, str):
            x = [x]
        if twice := [name for name in x if name in goals]:
            raise ConfigError(
                f"data.source.x names '{twice[0]}', which is data.source.y: leave it out of one"
            )
        return [_check_column(rows, name, "x") for name in x]
    others = {n: feature for n, feature in rows.features.items() if n not in (*goals, *aside)}
    image = next((n for n, feature in others.items() if _is_image(feature)), None)
    if image is not None:
        return [image]
    names = [n for n, feature in others.items() if _is_number(feature)]
    if not names:
        raise ConfigError(
            "data.source.x: no column of images or numbers was found; name what to learn from "
            f"(known: {', '.join(others)})"
        )
    return names


def _read_inputs(
    rows: Any, names: list[str], resize: int | Sequence[int] | None, mode: str | None
) -> Tensor | Inputs:
    if len(names) == 1 and _is_image(rows.features[names[0]]):
        return Images(rows, names[0], _parse_size(resize), mode)
    import numpy as np

    columns = [_read_column(rows, name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind not in "fiub":
            raise ConfigError(
                f"data.source.x: column '{name}' does not hold numbers, or lists of one length"
            )
    values = columns[0]
    if len(columns) > 1:
        values = np.stack(columns, 1)
    x = torch.as_tensor(values).double()
    if not bool(torch.isfinite(x).all()):
        raise ConfigError(
            "data.source.x: missing or infinite numbers in the columns; use data=table, which can "
            "fill them, or leave those columns out"
        )
    return x.reshape(len(x), *(x.shape[1:] or (1,)))


def _parse_size(resize: int | Sequence[int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    if isinstance(resize, int):
        resize = [resize, resize]
    sides = list(resize)
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"data.source.resize is {resize}: give a side, or [height, width]")
    return int(sides[0]), int(sides[1])


def _read_column(rows: Any, name: str) -> Any:
    """One column as a NumPy array; an array of objects where its rows are not alike."""
    import numpy as np

    items = rows[name][:]
    try:
        return np.asarray(items)
    except ValueError:  # lists of several lengths; NumPy keeps them apart only beside a None
        return np.asarray([None, *items], dtype=object)[1:]


def _find_label_names(rows: Any, goals: Sequence[str]) -> list[str] | None:
    """Return the names that a column of ClassLabel, or of lists of it, gives its numbers."""
    if len(goals) > 1:
        return None
    feature = rows.features[goals[0]]
    return getattr(getattr(feature, "feature", feature), "names", None)


def _holds_lists(rows: Any, name: str) -> bool:
    return hasattr(rows.features[name], "feature")


def _read_targets_of(rows: Any, goals: Sequence[str], as_lists: bool) -> Any:
    """Return the targets, [n] or [n, columns]; lists of labels stay lists, whatever their lengths.

    Whole numbers in lists are labels if ``as_lists`` says so, unless they are 0 and 1, which are
    an indicator a label.
    """
    import numpy as np

    if len(goals) > 1:
        return np.stack([_read_column(rows, name) for name in goals], 1)
    values = _read_column(rows, goals[0])
    names = _find_label_names(rows, goals)
    if names and _holds_lists(rows, goals[0]):
        lists = [None if row is None else [names[k] for k in row] for row in values.tolist()]
        return np.asarray([None, *lists, None], dtype=object)[1:-1]
    indicators = values.dtype.kind in "biu" and bool(((values == 0) | (values == 1)).all())
    numbers = values.dtype.kind == "f" or indicators or not as_lists
    if values.ndim != 2 or (numbers and values.dtype.kind in "biuf"):
        return values
    return np.asarray([None, *values.tolist()], dtype=object)[1:]


def _read_targets(
    task: Task, values: Any, known: list[str] | None, names: Sequence[Any] | None = None
) -> tuple[Tensor, list[Any] | None]:
    """Return targets and class names; labels that have names already keep them, in their order."""
    import numpy as np

    if known is None or values.dtype.kind not in "iu" or not task.has_classes:
        # lists of labels are texts by now, perhaps not of all the names there are
        return task.read_targets(values, names or (known if values.dtype == object else None))
    order = None if names is None else list(map(label_name, names))
    if order is not None and order != list(known):
        return task.read_targets(np.asarray(known)[values], order)
    return torch.as_tensor(values).long(), list(known)
