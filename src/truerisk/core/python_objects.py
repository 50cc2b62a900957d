"""Objects that a run was given from Python, where a configuration can only describe them."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from truerisk.core.errors import ConfigError

_OFFERED: ContextVar[Mapping[str, Any]] = ContextVar("offered", default={})  # noqa: B039


@contextmanager
def offer_objects(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let the parts that a configuration describes be found inside the block.

    Args:
        objects: ``model``, ``data``, ``metric.NAME`` and ``diagnostics.NAME`` that were given.
    """
    token = _OFFERED.set(objects)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def take_object(name: str, digest: str, what: str) -> Any:
    """Return an object that is offered.

    Args:
        name: ``model``, ``data``, or the node of a part.
        digest: what `hash_arrays` said of it when the run began.
        what: what the configuration knows of it, for messages.

    Raises:
        ConfigError: it is not, or it is another one.
    """
    offered = _OFFERED.get().get(name)
    if offered is None:
        group = name.partition(".")[0]
        argument = {"metric": "metrics", "diagnostics": "callbacks"}.get(group, group)
        raise ConfigError(
            f"{name}: this run was given {what} from Python, which must be given again: "
            f"truerisk.train(['resume=FOLDER'], {argument}=…)"
        )
    if offered.digest != digest:
        raise ConfigError(f"{name}: this is not {what} that the run was given when it began")
    return offered


class GivenPart(NamedTuple):
    """A metric or a callback as it was given.

    Args:
        part: the object, which each run takes a copy of.
        key: its node in a configuration, such as ``metric.f1``.
        digest: of its numbers and texts.
    """

    part: Any
    key: str
    digest: str

    def describe(self) -> dict[str, object]:
        """Return the node that stands for it in a configuration."""
        kind = type(self.part)
        node: dict[str, object] = {
            "_target_": f"{__name__}.given_part",
            "key": self.key,
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "digest": self.digest,
        }
        higher = getattr(self.part, "higher_is_better", None)
        return node if higher is None else {**node, "higher_is_better": bool(higher)}


def list_parts(parts: Any) -> list[Any]:
    """List what was given from Python.

    Args:
        parts: an object, several, or several by name.

    >>> list_parts(1), list_parts({"a": 1}), list_parts((1, 2))
    ([1], [1], [1, 2])
    """
    if isinstance(parts, Mapping):
        parts = parts.values()
    # a metric of torchmetrics has an __iter__, which says that there is none
    with suppress(NotImplementedError):
        return list(parts) if isinstance(parts, Iterable) else [parts]
    return [parts]


def read_parts(group: str, parts: Any) -> dict[str, GivenPart]:
    """Name metrics or callbacks that were given from Python, by their classes or as they are told.

    Args:
        group: ``metric`` or ``diagnostics``.
        parts: an object, several, or several by name.

    Returns:
        By their nodes in a configuration.

    Raises:
        ConfigError: two have one name.

    >>> list(read_parts("metric", [np.float64(1.0), np.int8(2)]))
    ['metric.float64', 'metric.int8']
    """
    if not isinstance(parts, Mapping):
        parts = list_parts(parts)
        words = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(part).__name__) for part in parts]
        names = [word.lower() for word in words]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{group}: two are called {twice[0]}: give a dict of them by name")
        parts = dict(zip(names, parts, strict=True))
    found = {}
    for name, part in parts.items():
        plain = (
            {k: v for k, v in vars(part).items() if isinstance(v, int | float | str)}
            if hasattr(part, "__dict__")
            else {}
        )
        digest = hashlib.sha256(repr(sorted(plain.items())).encode()).hexdigest()[:12]
        found[f"{group}.{name}"] = GivenPart(part, f"{group}.{name}", digest)
    return found


def given_part(key: str, class_path: str, digest: str, higher_is_better: bool | None = None) -> Any:
    """Return a copy of the metric or callback that a run was given.

    Args:
        key: of its node.
        class_path: where its class is defined.
        digest: of its numbers and texts.
        higher_is_better: for those who only read the configuration.

    Raises:
        ConfigError: it was not given again.
    """
    return copy.deepcopy(take_object(key, digest, f"a {class_path}").part)


def hash_arrays(arrays: Iterable[Any]) -> str:
    """Return twelve characters that tell arrays from others.

    Args:
        arrays: of numbers or texts, in their order.

    >>> hash_arrays([np.zeros(2)]) == hash_arrays([np.zeros(3)])
    False
    """
    state = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array)
        if plain.dtype.kind == "O":
            # lists of labels are no texts to NumPy
            plain = np.array([str(value) for value in plain.ravel()]).reshape(plain.shape)
        state.update(f"{plain.dtype}{plain.shape}".encode())
        state.update(plain.tobytes())
    return state.hexdigest()[:12]
