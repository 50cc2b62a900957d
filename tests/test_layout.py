"""The rules of the layout, kept by a test rather than by memory."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "truerisk"
GROUPS = (
    *("data", "model", "loss", "initializer", "optimizer", "scheduler", "regularizer"),
    *("diagnostics", "logger"),
)
ABOVE = {"diagnostics": {"calculus", "module", "objective", "recipe", "run", "show", "taps"}}
"""What a group that looks at the parts from above may import too."""
BELOW = {
    "objective": {"batch", "regularizer", "statistics"},
    "rules": {"errors"},
    "batch": set(),
    "errors": set(),
}
"""What the modules at the bottom may import."""


def imports(file: Path) -> set[str]:
    """First names below ``truerisk`` that a file imports, at its top or inside a function."""
    nodes = ast.walk(ast.parse(file.read_text()))
    names = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[1] for name in names if name.startswith("truerisk.")}


@pytest.mark.parametrize("group", GROUPS)
def test_a_part_imports_no_other_group_and_nothing_above_it(group):
    allowed = {group, "batch", "errors", "number", "rules", "rng", "statistics"}
    allowed |= ABOVE.get(group, set())
    for file in (SOURCE / group).glob("*.py"):
        assert imports(file) <= allowed, file


@pytest.mark.parametrize("name", BELOW)
def test_the_bottom_stays_the_bottom(name):
    assert imports(SOURCE / f"{name}.py") <= BELOW[name]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_sources_and_tests_bear_the_same_names(group):
    assert all((ROOT / top / group).is_dir() for top in ("conf", "src/truerisk", "tests"))


ORDER = ("sweeps", "reports", "verdicts", "reproductions")
"""What stands on single runs, from below upwards: none imports what comes after it."""


@pytest.mark.parametrize("name", ORDER)
def test_what_stands_on_runs_imports_one_way(name):
    above = set(ORDER[ORDER.index(name) + 1 :])
    for file in (SOURCE / name).rglob("*.py"):
        assert not imports(file) & above, file


def test_a_reproduction_is_a_study_and_its_claims():
    found = {file.stem for file in (SOURCE / "reproductions").glob("*.py")} - {"__init__"}
    assert found <= {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}


def test_the_package_imports_without_torch():
    code = "import sys, truerisk, truerisk.cli, truerisk.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
