"""Python in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).parents[1]


def output(*arguments: str) -> str:
    """What ``python arguments…`` prints, run with one thread in a folder of its own.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
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
