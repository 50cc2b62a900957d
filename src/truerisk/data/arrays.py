"""Arrays from an .npz file."""

from __future__ import annotations

import zipfile
from typing import Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.data.samples import Samples
from truerisk.data.source_files import find_path
from truerisk.task import infer_task


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
    inputs = _read_inputs(_find_array(found, x, "x"), x, learned.integer_inputs)
    if learned.has_classes:
        _check_classes(values, y)
    targets, names = learned.read_targets(values)
    test = None
    if tests is not None:
        test = (
            _read_inputs(tests[0], x_test, learned.integer_inputs),
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


def _read_inputs(values: Any, name: str | None, integers: bool) -> Tensor:
    """Return inputs [n, …] as floating-point numbers, or whole ones; [n] becomes [n, 1]."""
    # kinds of NumPy: floating-point, signed, unsigned, truth values
    if values.dtype.kind not in "fiub" or not values.ndim:
        raise ConfigError(f"data.source: array '{name}' holds {values.dtype}, not numbers")
    kind = "float32"
    if integers and values.dtype.kind in "iu":
        kind = "int64"
    elif values.dtype.itemsize == 8:
        kind = "float64"  # whole numbers of 64 bits too, as single precision would merge large ones
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
