"""A config node against the signature of what its ``_target_`` names."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from truerisk.core.errors import ConfigError, suggest

SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
OBJECTS = ("needs_python_object", "is_instance_of", "is_subclass_of", "callable_type")
"""Pydantic's complaints that no number or text could be right: not for a config to answer."""


def locate_target(path: str, key: str) -> Callable[..., Any]:
    """Import what a dotted path names.

    Raises:
        ConfigError: it cannot be imported or called; the message begins with ``key``.
    """
    parts = path.split(".")
    found: Any = _module(parts[0], key, path)
    for i, part in enumerate(parts[1:], 1):
        if not hasattr(found, part) and inspect.ismodule(found) and _is_module(parts[: i + 1]):
            # not by its name in the parent: what Hydra's search for plugins has imported is in
            # sys.modules alone
            found = _module(".".join(parts[: i + 1]), key, path)
            continue
        if not hasattr(found, part):
            names = [n for n in dir(found) if not n.startswith("_")]
            hint = suggest(part, names)
            hint = hint if len(names) < 20 or hint.startswith("did you mean") else "see its docs"
            raise ConfigError(f"{key}={path}: {'.'.join(parts[:i])} has no '{part}'; {hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(
            f"{key}={path}: it is a {type(found).__name__}, nothing that can be called"
        )
    return found


def _is_module(parts: list[str]) -> bool:
    try:
        return importlib.util.find_spec(".".join(parts)) is not None
    except (ImportError, ValueError):
        return False


def _module(name: str, key: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"{key}={path}: {name} needs the package '{error.name}'") from error
        raise ConfigError(
            f"{key}={path}: there is no module '{name}'; "
            "install it, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ConfigError(f"{key}={path}: importing {name} fails: {error}") from error


def find_mismatches(
    node: Mapping[str, Any], key: str, injected: Collection[str], *, skip: Collection[str] = ()
) -> Iterator[str]:
    """What is wrong with the arguments of one node.

    Args:
        node: plain containers, with a ``_target_``.
        key: where it is in the config.
        injected: names of arguments that are filled in at run time.
        skip: arguments whose values are not looked at.
    """
    target = locate_target(node["_target_"], f"{key}._target_")
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    given = {k: v for k, v in node.items() if k not in SPECIAL}
    yield from _unknown(node["_target_"], key, given, parameters, skip)
    if not node.get("_partial_") and not node.get("_args_"):
        yield from _missing(node["_target_"], key, {*given, *injected}, parameters)
    for name, value in given.items():
        if name in parameters and name not in skip:
            yield from _wrong_type(
                node["_target_"], f"{key}.{name}", value, target, parameters[name]
            )


Parameters = Mapping[str, inspect.Parameter]


def _unknown(
    path: str, key: str, given: Mapping[str, Any], parameters: Parameters, skip: Collection[str]
) -> Iterator[str]:
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given:
        if name not in parameters and name not in skip:
            hint = suggest(name, [p for p in parameters if p != "self"])
            yield f"{key}.{name}: {path} takes no '{name}'; {hint}"


def _missing(path: str, key: str, have: Collection[str], parameters: Parameters) -> Iterator[str]:
    for name, parameter in parameters.items():
        needed = parameter.default is inspect.Parameter.empty and parameter.kind not in VARIADIC
        if needed and name not in have:
            yield f"{key}.{name} is missing: {path} needs it; add +{key}.{name}=…"


def _wrong_type(
    path: str, key: str, value: Any, target: Callable[..., Any], parameter: inspect.Parameter
) -> Iterator[str]:
    """A value that the parameter's annotation does not admit, as far as that can be told."""
    usual = type(value) is type(parameter.default) and value == parameter.default
    if parameter.kind in VARIADIC or usual or _holds_target(value):
        return
    hint = _resolved(parameter.annotation, target)
    if hint is inspect.Parameter.empty or fits_type(value, hint):
        return
    yield f"{key} is {format_value(value)}, but {path} takes {_readable(hint)}"


def _holds_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_target, value.values()))
    return isinstance(value, list) and any(map(_holds_target, value))


def _resolved(annotation: Any, target: Callable[..., Any]) -> Any:
    """An annotation, evaluated where it was written if it is text; ``empty`` if that fails."""
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    module = getattr(function, "__module__", None)
    names = getattr(function, "__globals__", None) or vars(sys.modules.get(module or "", object))
    try:
        return eval(annotation, dict(names))
    except Exception:
        return inspect.Parameter.empty


def fits_type(value: Any, hint: Any) -> bool:
    """Whether a config value is of a type, without being converted; True if that cannot be told.

    Values are read as JSON, so that a list will do for a tuple.

    >>> fits_type([0.9, 0.99], tuple[float, float]), fits_type("abc", float)
    (True, False)
    >>> fits_type(2.5, int), fits_type(1, float)
    (False, True)
    """
    try:
        text = json.dumps(value)
        adapter = _known(hint)
    except Exception:
        return True
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        return all(e["type"] in OBJECTS for e in error.errors(include_url=False))
    except Exception:
        return True
    return True


def _known(hint: Any) -> TypeAdapter[Any]:
    """Made once for a type: a study asks of the same ones for each of its cells."""
    try:
        return _adapter(hint)
    except TypeError:  # a type whose annotations have no hash
        return _adapter.__wrapped__(hint)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:
        return TypeAdapter(hint)


def format_value(value: Any) -> str:
    """A value as the config has it.

    >>> format_value(None), format_value("ten"), format_value([1, True])
    ('null', "'ten'", '[1, true]')
    """
    return repr(value) if isinstance(value, str) else json.dumps(value, default=str)


def _readable(hint: Any) -> str:
    text = inspect.formatannotation(hint)
    if union := re.fullmatch(r"(?:typing\.)?Optional\[(.*)\]", text):
        text = f"{union[1]} | None"
    if union := re.fullmatch(r"(?:typing\.)?Union\[([^\[\]]*)\]", text):
        text = union[1].replace(", ", " | ")
    return re.sub(r"\b(?:typing|collections\.abc|torch|NoneType)\.", "", text).replace(
        "None", "null"
    )
