"""Objects that a run was given from Python, where a configuration can only describe them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from truerisk.core.errors import ConfigError

_OFFERED: ContextVar[Mapping[str, Any]] = ContextVar("offered", default={})  # noqa: B039


@contextmanager
def offer_objects(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let the parts that a configuration describes be found inside the block.

    Args:
        objects: ``model`` and ``data``, those of them that were given.
    """
    token = _OFFERED.set(objects)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def take_object(name: str, digest: str, what: str) -> Any:
    """Return an object that is offered.

    Args:
        name: ``model`` or ``data``.
        digest: what `hash_arrays` said of it when the run began.
        what: what the configuration knows of it, for messages.

    Raises:
        ConfigError: it is not, or it is another one.
    """
    offered = _OFFERED.get().get(name)
    if offered is None:
        raise ConfigError(
            f"{name}: this run was given {what} from Python, which must be given again: "
            f"truerisk.train(['resume=FOLDER'], {name}=…)"
        )
    if offered.digest != digest:
        raise ConfigError(f"{name}: this is not {what} that the run was given when it began")
    return offered


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
