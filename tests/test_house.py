"""The house in figures: how many files, how they name things, how much they explain.

``python tests/test_house.py`` prints the figures, folder by folder and in total. The tests hold
each of them to the bound in ``BOUNDS``, which is lowered as the code gets nearer to its goal.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "truerisk"

BOUNDS = {
    "files": (311, 230),
    "median lines": (110, 110),
    "lines": (72_150, 29_502),
    "code lines": (41_634, 17_310),
    "class names twice": (0, 0),
    "file stems twice": (0, 0),
    "one-word names, %": (30, 30),
    "fewest comments per 100": (4, 4),
    "most comments per 100": (6, 6),
    "Args, %": (75, 75),
    "class Args, %": (80, 80),
    "inline ifs per 1,000": (10, 10),
    "files that compare tasks": (0, 0),
    "files of a step": (8, 8),
    "files of a Hessian product": (5, 5),
}
AT_LEAST = ("median lines", "fewest comments per 100", "Args, %", "class Args, %")
TASKS = {"classification", "regression", "multilabel", "next_token", "function"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """One file of the package, read once."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def folder(self) -> str:
        parts = self.path.relative_to(SOURCE).parts
        return parts[0] if len(parts) > 1 else "(top)"

    @property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Lines of strings that stand by themselves: docstrings, and those below a constant."""
        strings = [
            node.value
            for node in self.nodes
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ]
        return {line for s in strings for line in range(s.lineno, (s.end_lineno or s.lineno) + 1)}

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def code_lines(self) -> int:
        """Lines that are neither blank, nor a comment alone, nor part of a docstring."""
        lines = enumerate(map(str.strip, self.text.splitlines()), 1)
        code = [i for i, line in lines if line and not line.startswith("#")]
        return len([i for i in code if i not in self.docstring_lines])

    @property
    def remarks(self) -> int:
        """Comments that say something to a reader, not to a tool."""
        directive = re.compile(r"#\s*(noqa|type: ignore|fmt:|pragma|mypy:|ruff:)")
        return sum(not directive.match(text) for _, text in self.comments)


@cache
def source_files() -> list[SourceFile]:
    return [SourceFile(path) for path in sorted(SOURCE.rglob("*.py"))]


def twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def class_names(files: Sequence[SourceFile]) -> list[str]:
    return [node.name for file in files for node in file.classes]


def file_stems(files: Sequence[SourceFile]) -> list[str]:
    return [file.path.stem for file in files if not file.path.stem.startswith("__")]


def function_names(files: Sequence[SourceFile]) -> list[str]:
    """Names of functions and methods, dunder methods aside, without a leading underscore."""
    names = [node.name for file in files for node in file.functions]
    return [name.lstrip("_") for name in names if not name.startswith("__")]


def one_word_names(files: Sequence[SourceFile]) -> list[str]:
    return [name for name in function_names(files) if name and "_" not in name]


def documented_functions(files: Sequence[SourceFile]) -> Iterator[tuple[str, bool]]:
    """Public functions and methods with two or more parameters, and whether each has ``Args:``.

    Not public are names with an underscore, and what is nested in functions or in private classes.
    """
    for file in files:
        yield from _documented(file.tree, "")


def documented_classes(files: Sequence[SourceFile]) -> Iterator[tuple[str, bool]]:
    """Public classes that take two or more arguments, and whether each has ``Args:``."""
    for node in (node for file in files for node in file.classes):
        inits = [n for n in node.body if isinstance(n, Function) and n.name == "__init__"]
        if not node.name.startswith("_") and any(_parameters(init) >= 2 for init in inits):
            yield node.name, "Args:" in (ast.get_docstring(node) or "")


def _documented(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, bool]]:
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _documented(node, f"{node.name}.")
        if not isinstance(node, Function) or node.name.startswith("_"):
            continue
        overload = "overload" in map(ast.unparse, node.decorator_list)
        if not overload and _parameters(node) >= 2:
            yield prefix + node.name, "Args:" in (ast.get_docstring(node) or "")


def _parameters(node: Function) -> int:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
    return len([a for a in arguments if a.arg not in ("self", "cls")])


def inline_ifs(files: Sequence[SourceFile]) -> int:
    """How often ``x if c else y`` stands in an expression; a figure per 1,000 non-blank lines."""
    return sum(isinstance(node, ast.IfExp) for file in files for node in file.nodes)


def task_comparisons(files: Sequence[SourceFile]) -> list[str]:
    """Files outside ``task/`` that compare something with the name of a task."""
    return [
        str(file.path.relative_to(SOURCE))
        for file in files
        if file.folder != "task" and any(map(_compares_task, file.nodes))
    ]


def _compares_task(node: ast.AST) -> bool:
    if isinstance(node, ast.MatchValue):
        return _names_task(node.value)
    return isinstance(node, ast.Compare) and any(
        _names_task(part)
        for side in (node.left, *node.comparators)
        for part in (side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side])
    )


def _names_task(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in TASKS


@cache
def module_at(name: str) -> SourceFile | None:
    """The file of a module ``truerisk.a.b``, or None if it is none."""
    base = SOURCE.parent / name.replace(".", "/")
    paths = [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    return next((file for file in source_files() if file.path in paths), None)


@cache
def definitions(file: SourceFile) -> dict[str, ast.AST]:
    """What a module defines at its top level, by name."""
    nodes: dict[str, ast.AST] = {}
    for node in file.tree.body:
        if isinstance(node, Function | ast.ClassDef):
            nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            nodes |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return nodes


@cache
def imported_names(file: SourceFile) -> dict[str, tuple[str, str]]:
    """What a module imports of ours: local name to module and name in it."""
    names = {}
    for node in file.nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("truerisk"):
            for alias in node.names:
                names[alias.asname or alias.name] = (node.module or "", alias.name)
    return names


def _called_names(node: ast.AST) -> set[str]:
    """Names met in code: those in annotations alone are not.

    Attributes of a module, as in ``rng.fork``, are met as both words.
    """
    if isinstance(node, Function):
        parts: list[ast.AST] = [*node.body, *node.decorator_list, *node.args.defaults]
    elif isinstance(node, ast.AnnAssign):
        parts = [node.value] if node.value is not None else []
    else:
        parts = list(ast.iter_child_nodes(node))
    names = {node.id} if isinstance(node, ast.Name) else set()
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        names.add(f"{node.value.id}.{node.attr}")
    return names.union(*map(_called_names, parts))


def _names(node: ast.AST) -> set[str]:
    """Names met in code and in annotations."""
    nodes = list(ast.walk(node))
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    modules = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    return names | {f"{n.value.id}.{n.attr}" for n in modules if isinstance(n.value, ast.Name)}


def files_to_understand(start: str, *symbols: str) -> list[str]:
    """Files that a reader opens to follow ``symbols`` of a module (all of them if none is given).

    The reader looks up each class and function of ours that the symbols and what they inherit name,
    the types of their arguments included; and from these on each that is called by name. Exceptions
    and modules that only pass a name on are not counted.
    """
    file = module_at(start)
    assert file is not None, start
    waiting = [(file, name) for name in (symbols or definitions(file))]
    inherited = [_resolve(file, c) for _, name in waiting for c in _bases(definitions(file)[name])]
    waiting += [base for base in inherited if base is not None]
    origin, seen = set(waiting), set(waiting)
    while waiting:
        file, name = waiting.pop()
        names = _names if (file, name) in origin else _called_names
        targets = [_resolve(file, called) for called in names(definitions(file)[name])]
        new = {target for target in targets if target is not None} - seen
        seen |= new
        waiting += new
    return sorted({str(file.path.relative_to(SOURCE)) for file, _ in seen})


def _bases(node: ast.AST) -> list[str]:
    bases = node.bases if isinstance(node, ast.ClassDef) else []
    return [ast.unparse(base) for base in bases]


def _resolve(file: SourceFile, name: str) -> tuple[SourceFile, str] | None:
    """Where a class or function that a file calls by ``name`` is defined."""
    first, _, attribute = name.partition(".")
    for _ in range(5):
        if first in definitions(file):
            node = definitions(file)[first]
            code = isinstance(node, Function | ast.ClassDef) and file.path.stem != "errors"
            return (file, first) if code else None
        if first not in imported_names(file):
            return None
        module, original = imported_names(file)[first]
        inner = module_at(f"{module}.{original}")
        if inner is not None:
            file, first = inner, attribute
        else:
            outer = module_at(module)
            if outer is None or outer == file:
                return None
            file, first = outer, original
    return None


def step_files() -> list[str]:
    return files_to_understand("truerisk.engine.step")


def product_files() -> list[str]:
    homes = (
        ("truerisk.objective.operators", "HessianOperator"),
        ("truerisk.objective", "HessianOperator"),
        ("truerisk.calculus.hessian", "Hessian"),
    )
    for module, name in homes:
        file = module_at(module)
        if file is not None:
            target = _resolve(file, name)
            if target is not None:
                stem = target[0].path.relative_to(SOURCE.parent).with_suffix("")
                return files_to_understand(".".join(stem.parts), name)
    raise LookupError("no Hessian operator")


def per(count: float, base: float, scale: float) -> float:
    return round(scale * count / base, 1) if base else 0.0


def measure(files: Sequence[SourceFile]) -> dict[str, float]:
    """The figures that can be counted in any part of the package."""
    code = sum(file.code_lines for file in files)
    documented = [has for _, has in documented_functions(files)]
    classes = [has for _, has in documented_classes(files)]
    comments = per(sum(file.remarks for file in files), code, 100)
    written = sum(bool(line.strip()) for file in files for line in file.text.splitlines())
    return {
        "files": len(files),
        "median lines": statistics.median(file.lines for file in files),
        "lines": sum(file.lines for file in files),
        "code lines": code,
        "class names twice": len(twice(class_names(files))),
        "file stems twice": len(twice(file_stems(files))),
        "one-word names, %": per(len(one_word_names(files)), len(function_names(files)), 100),
        "comments per 100": comments,
        "Args, %": per(sum(documented), len(documented), 100),
        "class Args, %": per(sum(classes), len(classes), 100),
        "inline ifs per 1,000": per(inline_ifs(files), written, 1000),
        "files that compare tasks": len(task_comparisons(files)),
    }


@cache
def figures() -> dict[str, float]:
    """All figures of the whole package, under the names of ``BOUNDS``."""
    total = measure(source_files())
    comments = total.pop("comments per 100")
    paths = {
        "files of a step": len(step_files()),
        "files of a Hessian product": len(product_files()),
    }
    bounds = {"fewest comments per 100": comments, "most comments per 100": comments}
    return {**total, **bounds, **paths}


def what(figure: str) -> object:
    """What a figure counts, to be shown where it is out of bounds."""
    files = source_files()
    lists = {
        "class names twice": lambda: twice(class_names(files)),
        "file stems twice": lambda: twice(file_stems(files)),
        "files that compare tasks": lambda: task_comparisons(files),
        "files of a step": step_files,
        "files of a Hessian product": product_files,
    }
    return lists[figure]() if figure in lists else ""


@pytest.mark.house
@pytest.mark.parametrize("figure", BOUNDS)
def test_the_house_keeps_its_bounds(figure):
    bound, _goal = BOUNDS[figure]
    value = figures()[figure]
    assert value >= bound if figure in AT_LEAST else value <= bound, what(figure)


@pytest.mark.house
@pytest.mark.parametrize("figure", BOUNDS)
def test_no_bound_is_stricter_than_its_goal(figure):
    bound, goal = BOUNDS[figure]
    assert bound <= goal if figure in AT_LEAST else bound >= goal


def print_figures() -> None:
    folders: dict[str, list[SourceFile]] = defaultdict(list)
    for file in source_files():
        folders[file.folder].append(file)
    rows = {name: measure(files) for name, files in sorted(folders.items())}
    rows["(all)"] = measure(source_files())
    heads = [
        "files",
        "median",
        "lines",
        "code",
        "class×2",
        "stem×2",
        "1-word%",
        "#/100",
        "Args%",
        "cls%",
    ]
    heads += ["ifs/1k", "tasks"]
    print(f"{'':14}" + "".join(f"{head:>9}" for head in heads))
    for name, row in rows.items():
        print(f"{name:14}" + "".join(f"{value:9g}" for value in row.values()))
    print()
    for figure, (bound, goal) in BOUNDS.items():
        sign = "≥" if figure in AT_LEAST else "≤"
        print(f"{figure:28}{figures()[figure]:8g}   bound {sign} {bound:<8g} goal {sign} {goal:g}")
        if what(figure):
            print(f"    {', '.join(map(str, what(figure)))}")


def print_one_word_names(folder: str) -> None:
    """Each one-word function name below a folder, by file, and public functions without Args."""
    for file in source_files():
        path = str(file.path.relative_to(SOURCE))
        if path.startswith(folder):
            print(path)
            print("   one word:", *sorted(set(one_word_names([file]))))
            print("   no Args: ", *(name for name, has in documented_functions([file]) if not has))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print_one_word_names(argument)
    if len(sys.argv) == 1:
        print_figures()
