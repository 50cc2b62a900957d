"""A config node against the signature of what its ``_target_`` names."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import hydra.utils
from pydantic import ConfigDict, TypeAdapter, ValidationError

from truerisk.config.parts import conf_dir
from truerisk.core.errors import ConfigError, read_message, suggest

FILLED_IN: Mapping[str, frozenset[str]] = {
    "data": frozenset({"seed"}),
    "model": frozenset({"input_shape", "output_size", "dtype"}),
    "regularizer": frozenset({"input_shape", "standardizer"}),
    "metric": frozenset({"num_classes", "num_labels", "num_outputs", "token_bytes"}),
    "logger": frozenset({"folder", "run_id", "config", "resume_step"}),
}
"""By config group, the arguments that `truerisk.assemble.build` fills in where a signature has
them; it fills in no others."""
LIGHTER = {"truerisk.data.DataModule": "truerisk.data.RunData"}
"""What a run builds in the place of a class: the same without Lightning, whose import takes longer
than a short run."""
MOVED = {
    "truerisk.sweeps.launcher.vectorized_slurm.VectorizedSlurm": (
        "truerisk.sweeps.launcher.submitit_launcher.VectorizedSlurm"
    ),
}
"""Where what an earlier version named by a file's own path stands now."""
SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Keys of a node that are Hydra's."""
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
OBJECTS = ("needs_python_object", "is_instance_of", "is_subclass_of", "callable_type")
"""Pydantic's complaints that no number or text could be right: not for a config to answer."""

Parameters = Mapping[str, inspect.Parameter]


def locate_target(path: str, key: str) -> Callable[..., Any]:
    """Import what a dotted path names.

    Args:
        path: such as ``truerisk.model.MLP``.
        key: where it stands in the config, for messages.

    Raises:
        ConfigError: it cannot be imported or called; the message begins with ``key``.
    """
    parts = {**LIGHTER, **MOVED}.get(path, path).split(".")
    target: Any = _import_module(parts[0], key, path)
    for i, part in enumerate(parts[1:], 1):
        inner = ".".join(parts[: i + 1])
        if hasattr(target, part):
            target = getattr(target, part)
        elif inspect.ismodule(target) and _is_module(inner):
            # not as the parent's attribute: what Hydra's search for plugins has imported is
            # in sys.modules alone
            target = _import_module(inner, key, path)
        else:
            names = [name for name in dir(target) if not name.startswith("_")]
            hint = suggest(part, names)
            if len(names) >= 20 and not hint.startswith("did you mean"):
                hint = "see its docs"
            raise ConfigError(f"{key}={path}: {'.'.join(parts[:i])} has no '{part}'; {hint}")
    if not callable(target):
        kind = type(target).__name__
        raise ConfigError(f"{key}={path}: it is a {kind}, nothing that can be called")
    return target


def find_called(node: Any) -> Iterator[Mapping[str, Any]]:
    """Find the nodes of plain containers that say what is to be called, that of the top first."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for below in node:
            yield from find_called(below)


def permit_targets(node: Any) -> AbstractContextManager[Any]:
    """Name to Hydra what it may call while the context lasts; before version 1.4 it does not ask.

    That is what the node names, and for what this returns every library that is imported by now,
    but for Python's own.

    Args:
        node: plain containers, whose targets have been imported.
    """
    if not hasattr(hydra.utils, "execution_whitelist"):
        return nullcontext()
    libraries = {name.partition(".")[0] for name in list(sys.modules)} - sys.stdlib_module_names
    # the last is how functions of C are called that know no name of their own, as torch's
    allowed = [*(f"{name}.*" for name in libraries), "builtins.builtin_function_or_method"]
    for called in find_called(node):
        allowed.append(str(called["_target_"]))
        if allowed[-1].startswith("hydra.utils.get_"):  # whose name is looked up
            allowed += [called["path"]] if "path" in called else called["_args_"][:1]
    return hydra.utils.execution_whitelist(allowed)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _import_module(name: str, key: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"{key}={path}: {name} needs the package '{error.name}'") from error
        raise ConfigError(
            f"{key}={path}: there is no module '{name}'; "
            "install it, run truerisk in the folder that holds it, or put that folder on PYTHONPATH"
        ) from error
    except Exception as error:  # a user's module may raise anything when it is imported
        said = read_message(error)
        raise ConfigError(f"{key}={path}: importing {name} fails: {said}") from error


def find_mismatches(
    node: Mapping[str, Any],
    key: str,
    filled_in: Collection[str] = (),
    *,
    skip: Collection[str] = (),
    target: Callable[..., Any] | None = None,
) -> Iterator[str]:
    """Describe what is wrong with the arguments of one node, in a line each.

    Args:
        node: plain containers, with a ``_target_``.
        key: where it is in the config.
        filled_in: names of arguments that are filled in at run time.
        skip: arguments whose values are not looked at.
        target: whose signature counts; by default what the node names.
    """
    path = node["_target_"]
    if target is None:
        target = locate_target(path, f"{key}._target_")
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return
    given = {name: value for name, value in node.items() if name not in SPECIAL}
    unknown = _list_unknown(given, parameters, skip)
    if len(unknown) > 3:
        # another class stands in the place of the option's own, whose keys are still there
        known = ", ".join(p for p in parameters if p != "self")
        yield (
            f"{key}._target_={path} takes none of {', '.join(unknown)}, the keys of the option: "
            f"write a YAML of its own for it (docs/your_own.md), with some of {known}"
        )
        return
    for name in unknown:
        hint = suggest(name, [p for p in parameters if p != "self"])
        yield f"{key}.{name}: {path} takes no '{name}'; {hint}"
    if not node.get("_partial_") and not node.get("_args_"):
        yield from _find_missing(path, key, {*given, *filled_in}, parameters)
    for name, value in given.items():
        if name in parameters and name not in skip:
            yield from _find_unplaced_option(path, f"{key}.{name}", value, target, parameters[name])
            yield from _find_wrong_type(path, f"{key}.{name}", value, target, parameters[name])


def _list_unknown(
    given: Mapping[str, Any], parameters: Parameters, skip: Collection[str]
) -> list[str]:
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return []
    return [name for name in given if name not in parameters and name not in skip]


def _find_missing(
    path: str, key: str, given: Collection[str], parameters: Parameters
) -> Iterator[str]:
    for name, parameter in parameters.items():
        needed = parameter.default is inspect.Parameter.empty and parameter.kind not in VARIADIC
        if needed and name not in given:
            yield f"{key}.{name} is missing: {path} needs it; add +{key}.{name}=…"


def find_swallowed(node: Mapping[str, Any], key: str, target: Callable[..., Any]) -> Iterator[str]:
    """Describe arguments that a class takes in its ``**kwargs`` and never looks at.

    Args:
        node: plain containers.
        key: where it is in the config.
        target: what the node's ``_target_`` names.
    """
    parameters = inspect.signature(target).parameters
    rest = [p.name for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    try:
        source = inspect.getsource(target.__init__ if inspect.isclass(target) else target)
    except (OSError, TypeError):
        return
    # handed on, or looked through: nobody can tell what is known there
    looked_at = rf"\b{rest[0]}\b(?!\.(?:get|pop)\()" if rest else ""
    if not rest or len(re.findall(looked_at, source)) > 1:
        return
    for name in node:
        read = re.search(rf"""['"]{re.escape(str(name))}['"]""", source)
        if name not in parameters and name not in SPECIAL and not read:
            hint = suggest(str(name), [p for p in parameters if p not in ("self", *rest)])
            yield f"{key}.{name}: {node['_target_']} would ignore '{name}'; {hint}"


def _find_unplaced_option(
    path: str, key: str, value: Any, target: Callable[..., Any], parameter: inspect.Parameter
) -> Iterator[str]:
    """Find the name of an option where what the option makes is needed."""
    group = key.partition(".")[0]
    if not isinstance(value, str) or not (conf_dir() / group / f"{value}.yaml").is_file():
        return
    hint = _evaluate_annotation(parameter.annotation, target)
    if hint is not inspect.Parameter.empty and not _make_adapter_fits(hint, value):
        yield (
            f"{key} is '{value}', but {path} takes what that option makes: "
            f"write {group}@{key}={value}"
        )


def _make_adapter_fits(hint: Any, value: Any) -> bool:
    """Tell whether a value is of a type, objects included."""
    try:
        _make_adapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return False
    except Exception:
        return True
    return True


def _find_wrong_type(
    path: str, key: str, value: Any, target: Callable[..., Any], parameter: inspect.Parameter
) -> Iterator[str]:
    """Find a value that the parameter's annotation does not admit, as far as that can be told."""
    # a default is right whatever the annotation says, and needs no look at it
    is_default = type(value) is type(parameter.default) and value == parameter.default
    if parameter.kind in VARIADIC or is_default or any(find_called(value)):
        return
    hint = _evaluate_annotation(parameter.annotation, target)
    if hint is not inspect.Parameter.empty and not fits_type(value, hint):
        whole = ""
        if isinstance(value, float) and value.is_integer() and fits_type(int(value), hint):
            whole = f": write {int(value)}"
        yield f"{key} is {format_value(value)}, but {path} takes {_format_type(hint)}{whole}"


def _evaluate_annotation(annotation: Any, target: Callable[..., Any]) -> Any:
    """Evaluate an annotation that is text where it was written; ``empty`` if that fails."""
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    module = getattr(function, "__module__", None)
    names = getattr(function, "__globals__", None) or vars(sys.modules.get(module or "", object))
    try:
        # in the names of the module that wrote it; `typing.get_type_hints` fails as a whole
        return eval(annotation, dict(names))
    except Exception:  # a name that is imported for type checkers alone
        return inspect.Parameter.empty


def fits_type(value: Any, hint: Any) -> bool:
    """Tell whether a config value is of a type, without being converted; True if unknown.

    Args:
        value: plain containers, read as JSON, so that a list will do for a tuple.
        hint: an evaluated annotation.

    >>> fits_type([0.9, 0.99], tuple[float, float]), fits_type("abc", float)
    (True, False)
    >>> fits_type(2.5, int), fits_type(1, float)
    (False, True)
    """
    try:
        # as JSON, whose lists strict mode takes for tuples, but no text for a number
        text = json.dumps(value)
        adapter = _make_adapter(hint)
    except Exception:
        return True
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        # a union of a number and an object is wrong only if the number is
        return all(e["type"] in OBJECTS for e in error.errors(include_url=False))
    except Exception:
        return True
    return True


def _make_adapter(hint: Any) -> TypeAdapter[Any]:
    """Make pydantic's adapter of a type, once: a study asks for the same ones for every cell."""
    try:
        return _make_adapter_once(hint)
    except TypeError:  # a type whose annotations have no hash
        return _make_adapter_once.__wrapped__(hint)


@cache
def _make_adapter_once(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # dataclasses and pydantic's own models bring their configuration
        return TypeAdapter(hint)


def format_value(value: Any) -> str:
    """Write a value as the config has it.

    >>> format_value(None), format_value("ten"), format_value([1, True])
    ('null', "'ten'", '[1, true]')
    """
    if isinstance(value, str):
        return repr(value)
    return json.dumps(value, default=str)


def _format_type(hint: Any) -> str:
    text = inspect.formatannotation(hint)
    if union := re.fullmatch(r"(?:typing\.)?Optional\[(.*)\]", text):
        text = f"{union[1]} | None"
    if union := re.fullmatch(r"(?:typing\.)?Union\[([^\[\]]*)\]", text):
        text = union[1].replace(", ", " | ")
    text = re.sub(r"\b(?:typing|collections\.abc|torch|NoneType)\.", "", text)
    return text.replace("None", "null")
