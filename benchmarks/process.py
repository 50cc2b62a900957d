"""Python in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).parents[1]


def make_environment() -> dict[str, str]:
    """This process's, with one thread, and these benchmarks found from every folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def output(*arguments: str) -> str:
    """What ``python arguments…`` prints, run with one thread in a folder of its own.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    with TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=make_environment(),
            check=False,
        )
    if result.returncode:
        raise RuntimeError(f"python {' '.join(arguments)}\n{result.stderr}")
    return result.stdout


def seconds(*arguments: str) -> float:
    """How long ``python arguments…`` takes, from start to exit."""
    began = perf_counter()
    output(*arguments)
    return perf_counter() - began
