"""The rules of the layout, kept by a test rather than by memory."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "truerisk"
GROUPS = (
    *("data", "model", "loss", "metric", "initializer", "optimizer", "scheduler", "regularizer"),
    *("diagnostics", "logger"),
)
ABOVE = {
    "diagnostics": {
        *("objective", "data.split.Split", "recipe", "run", "show"),
        "engine.lightning.ModelBackend",
        *("engine.loop.Observer", "engine.loop.TrainingLoop"),
    },
}
"""What a group that looks at the parts from above may import too."""
BELOW = {
    "objective/objective": {"core.batch", "core.deterministic"},
    "core/parameter_rules": {"core.errors"},
    "core/batch": set(),
    "core/errors": set(),
    "risk/measured": set(),
}
"""What the modules at the bottom may import."""


def imports(file: Path) -> set[str]:
    """Dotted names below ``truerisk`` that a file imports, at its top or inside a function."""
    nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {name.removeprefix("truerisk.") for name in names if name.startswith("truerisk.")}


def others(file: Path, allowed: set[str]) -> set[str]:
    """What a file imports beside what is ``allowed`` and what lies in that."""
    return {n for n in imports(file) if not any(f"{n}.".startswith(f"{a}.") for a in allowed)}


@pytest.mark.parametrize("group", GROUPS)
def test_a_part_imports_no_other_group_and_nothing_above_it(group):
    allowed = {group, "core", "task"} | ABOVE.get(group, set())
    for file in (SOURCE / group).rglob("*.py"):
        assert not others(file, allowed), file


@pytest.mark.parametrize("name", BELOW)
def test_the_bottom_stays_the_bottom(name):
    assert not others(SOURCE / f"{name}.py", BELOW[name])


@pytest.mark.parametrize("group", GROUPS)
def test_groups_sources_and_tests_bear_the_same_names(group):
    assert all((ROOT / top / group).is_dir() for top in ("conf", "src/truerisk", "tests"))


ORDER = (
    *("core", "task", "outcome", "sharding"),
    *(group for group in GROUPS if group != "diagnostics"),
    *(
        "config",
        "parametrization",
        "objective",
        "recipe",
        "risk",
        "run",
        "engine",
        "combinations",
        "assemble",
    ),
    *(
        "predictor",
        "result",
        "show",
        "diagnostics",
        "lengthen",
        "fit",
        "__init__",
        "evaluate",
        "predict",
        "export",
        "generate",
    ),
    *("sweeps", "reports", "launch", "python_sweep", "verdicts", "reproductions"),
    *("cli", "__main__"),
)
"""The folders and files of the package, from below upwards: none imports what comes after it."""
UPWARDS = {
    "assemble": {"diagnostics.Diagnostic"},  # to tell our diagnostics from any other callback
    # a run in a notebook tells of itself, and shows its figure
    "result": {"show.console.print_report", "show.figure.draw_result"},
    # the version stands in the package alone
    "run": {"__version__"},
    "cli": {"__version__"},
    "sweeps": {"__version__"},
    "verdicts": {"reproductions"},  # the folder that it looks into
}
"""The exceptions."""


def test_every_folder_and_file_has_its_place_in_the_order():
    places = [p for p in SOURCE.iterdir() if p.suffix == ".py" or list(p.glob("*.py"))]
    found = {place.stem for place in places}
    assert found == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name):
    allowed = {*ORDER[: ORDER.index(name) + 1], *UPWARDS.get(name, ())}
    for file in [*(SOURCE / name).rglob("*.py"), *SOURCE.glob(f"{name}.py")]:
        assert not others(file, allowed), file


def test_the_engine_asks_nobody_to_build_or_to_read_history():
    """By its place in the order it imports neither; nor does it by a name or through the façade."""
    for file in (SOURCE / "engine").rglob("*.py"):
        text = file.read_text()
        assert not [name for name in imports(file) if name.startswith("logger.")], file
        assert "import truerisk" not in text and "truerisk.assemble" not in text, file


def test_a_reproduction_is_a_study_and_its_claims():
    found = {file.stem for file in (SOURCE / "reproductions").glob("*.py")} - {"__init__"}
    assert found <= {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}


TORCH_FREE = (
    *("config/*", "cli", "launch", "evaluate", "reports/study_report", "risk/measured", "run"),
    *("task/*", "show/console", "result"),
)
"""What answers without torch: ``parts``, ``--cfg job``, ``report``, and reading a run's folder."""


@pytest.mark.parametrize("name", TORCH_FREE)
def test_it_imports_without_torch(name):
    files = [file.relative_to(ROOT / "src") for file in SOURCE.glob(f"{name}.py")]
    modules = ", ".join(".".join(file.with_suffix("").parts) for file in files)
    code = f"import sys, truerisk, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def definitions(kind: type | tuple[type, ...]) -> list[str]:
    """Names of the classes or functions of the package, nested ones too."""
    files = sorted(SOURCE.rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return [node.name for node in nodes if isinstance(node, kind)]


def test_no_class_name_stands_for_two_things():
    counts = Counter(definitions(ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_file_name_stands_for_two_parts():
    """Tests, which bear the name of their part, are in another folder."""
    stems = Counter(file.stem for file in SOURCE.rglob("*.py"))
    assert {stem for stem, count in stems.items() if count > 1} <= {"__init__", "__main__"}


def test_functions_are_named_by_verb_and_object():
    """What has one word is a formula's name, a noun that an object has, or a library's protocol."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [name.lstrip("_") for name in definitions(functions) if not name.startswith("__")]
    one_word = [name for name in names if "_" not in name]
    assert len(one_word) <= 0.35 * len(names), Counter(one_word).most_common(40)


@cache
def names_in(file: Path) -> set[str]:
    """Whatever a module may be asked for: what it defines, assigns, imports or lists as a text."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in nodes if isinstance(node, named)}
    names |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    aliases = [a for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
    return names | {alias.asname or alias.name for alias in aliases}


def unresolved(file: Path) -> set[str]:
    """What a file imports of ours that is not there; mypy passes over a module that is missing."""
    missing = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("truerisk"):
            continue
        base = ROOT / "src" / str(node.module).replace(".", "/")
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        names = names_in(module) if module.is_file() else set()
        inner = {path.stem for path in base.glob("*")}
        missing |= {f"{node.module}.{a.name}" for a in node.names if a.name not in names | inner}
    return missing


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_all_that_is_imported_is_there(folder):
    missing = {str(file): unresolved(file) for file in (ROOT / folder).rglob("*.py")}
    assert {file: names for file, names in missing.items() if names} == {}
