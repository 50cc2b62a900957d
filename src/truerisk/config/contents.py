"""What stands in the files that a configuration names: the user's data, and the user's code.

A path and a class's name stay what they are when the file behind them is edited. Its content is
hashed as well, so that a study can tell runs on the one from runs on the other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

ELSEWHERE = frozenset({"choices", "hydra", "resume", "study", "logger", "cache"})
"""Keys below which no path decides what a run learns."""
TARGETS = ("_target_", "class_path")
LARGE = 2**30
"""Bytes from which on a file is sampled, and of a folder names and sizes alone are read."""
CHUNK = 2**20
DIGITS = 16

Known = dict[tuple[bool, str], dict[str, str]]
"""What texts name, with its digest, as found so far; by whether one is a target, and the text."""


def hash_contents(config: Mapping[str, Any], known: Known | None = None) -> dict[str, str]:
    """Hash the local files and folders that a configuration names, and the user's own modules.

    Args:
        config: plain, resolved containers.
        known: takes in what is hashed, for the cells of a study, which mostly name the same.

    Returns:
        Sixteen hexadecimal digits of SHA-256 by path, as the configuration has it, and by module.
        What a module imports counts with it, as far as it is the user's, too.
    """
    known = {} if known is None else known
    texts: set[tuple[bool, str]] = set()
    _add_texts(config, "", texts)
    found: dict[str, str] = {}
    for text in texts:
        if text not in known:
            known[text] = _hash_named(*text)
        found |= known[text]
    return dict(sorted(found.items()))


def list_changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List what has another content now; what only one of the two knows is left out.

    >>> list_changed({"a.csv": "1", "b.csv": "2"}, {"a.csv": "1", "b.csv": "3", "c.csv": "4"})
    ['b.csv']
    """
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def find_module_name(path: str, names: Iterable[str]) -> str:
    """Find which of some modules a dotted path leads into; empty where none."""
    return next((name for name in names if path == name or path.startswith(f"{name}.")), "")


def _add_texts(node: Any, key: str, texts: set[tuple[bool, str]]) -> None:
    """Add each text in nested containers, with whether it stands under the key of a target."""
    if isinstance(node, str):
        texts.add((key in TARGETS, node))
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if name not in ELSEWHERE:
                _add_texts(value, name, texts)
    elif isinstance(node, list | tuple):
        for value in node:
            _add_texts(value, key, texts)


def _hash_named(target: bool, text: str) -> dict[str, str]:
    """Hash the file, folder or user's module that a text names; empty where it names none."""
    if target:
        name = _find_module(text)
        return {name: _hash_module(name)} if name else {}
    return {text: _hash_path(Path(text))} if _is_path(text) else {}


def _is_path(text: str) -> bool:
    # a word alone is the name of something, though a file may be called so
    if not ("." in text or "/" in text) or "\n" in text or len(text) > 4096:
        return False
    try:
        return Path(text).is_file() or ("/" in text and Path(text).is_dir())
    except (OSError, ValueError):
        return False


def _hash_path(path: Path) -> str:
    """Hash a file's size and content, or those of a folder's files with their names in it."""
    digest = hashlib.sha256()
    if path.is_file():
        _add_bytes(digest, path)
        return digest.hexdigest()[:DIGITS]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    whole = sum(file.stat().st_size for file in files) < LARGE
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        if whole:
            _add_bytes(digest, file)
        else:
            digest.update(str(file.stat().st_size).encode())
    return digest.hexdigest()[:DIGITS]


def _add_bytes(digest: Any, file: Path) -> None:
    """Add a file's size and content; of a large one 64 pieces that are spread over it."""
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as stream:
        if size < LARGE:
            while piece := stream.read(CHUNK):
                digest.update(piece)
            return
        for i in range(64):
            stream.seek((size - CHUNK) * i // 63)
            digest.update(stream.read(CHUNK))


def _find_module(path: str) -> str:
    """Find the user's module that a dotted path leads into; empty where it is a library's."""
    if not _is_users(path.partition(".")[0]):
        return ""
    parts = path.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    return next((name for name in names if _find_file(name) is not None), "")


@cache
def _is_users(package: str) -> bool:
    """Tell a module of the user's from Python's own and from what is installed."""
    if package in sys.stdlib_module_names or package == "truerisk":
        return False
    spec = _find_spec(package)
    if spec is None:
        return False
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return not any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except Exception:  # a package of the user's may raise anything when it is imported
        return None


def _find_file(name: str) -> Path | None:
    spec = _find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _hash_module(name: str) -> str:
    """Hash the source of a module and of what it imports, without running any of it."""
    sources: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        file = _find_file(module)
        if module in sources or file is None or not file.is_file():
            continue
        sources[module] = file.read_text(encoding="utf-8", errors="replace")
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        found = [_find_module(path) for path in _list_imports(sources[module], package)]
        waiting += [path for path in found if path]
    text = "\n".join(f"{module}\n{source}" for module, source in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _list_imports(source: str, package: str) -> list[str]:
    """List the dotted paths that a source imports, relative ones made absolute."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []
    paths = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            above = ""
            if node.level:
                # `from ..a import b` in x.y.z is x.a
                above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            base = ".".join(part for part in (above, node.module or "") if part)
            paths += [f"{base}.{alias.name}" for alias in node.names if base]
    return paths
