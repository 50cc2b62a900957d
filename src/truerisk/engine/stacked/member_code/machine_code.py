"""The compiler of C, and what it has compiled before."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from truerisk.data.source_files import cache_folder

FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-std=gnu11", "-fPIC", "-shared"),
    "-Werror=incompatible-pointer-types",
)
PATIENCE = 300
"""Seconds that a compiler may take."""


def load_function(source: str) -> Any | None:
    """Load ``run`` of a source, which is compiled unless it was before.

    Returns:
        None where there is no compiler, or no BLAS that can be called.
    """
    blas = find_blas()
    compiler = find_compiler()
    if blas is None or compiler is None:
        return None
    path = cache_folder() / "member_code" / f"{name_source(source, compiler)}.so"
    try:
        if not path.exists():
            compile_source(source, compiler, path)
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    library.bind(*(ctypes.cast(product, ctypes.c_void_p) for product in blas))
    return library.run


@cache
def find_compiler() -> str | None:
    """Find the compiler of C."""
    asked = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    found = (shutil.which(name) for name in (asked.split()[0], "cc", "gcc", "clang"))
    return next((path for path in found if path), None)


@cache
def find_blas() -> tuple[Any, Any] | None:
    """Find the products of matrices that torch itself calls, in float and double."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        try:
            library = ctypes.CDLL(str(path))
            return library.sgemm_, library.dgemm_
        except (OSError, AttributeError):
            continue
    return None


@cache
def find_math() -> list[str]:
    """Find the libraries of exp and its like; glibc has those for whole registers apart."""
    return ["-lmvec", "-lm"] if ctypes.util.find_library("mvec") else ["-lm"]


def compile_source(source: str, compiler: str, path: Path) -> None:
    """Compile a source into a library, which is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        code, library = Path(folder) / "code.c", Path(folder) / "code.so"
        code.write_text(source)
        subprocess.run(
            [compiler, *FLAGS, str(code), "-o", str(library), *find_math()],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            start_new_session=True,  # an interrupt is the run's alone
        )
        library.replace(path)


def name_source(source: str, compiler: str) -> str:
    """Name what a source is compiled to, on this processor by this compiler."""
    parts = [source, *FLAGS, describe_compiler(compiler)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@cache
def describe_compiler(compiler: str) -> str:
    """Return the compiler's version, and the instructions that it finds on this processor."""
    asked = [compiler, "-march=native", "-E", "-dM", "-x", "c", os.devnull]
    return subprocess.run(asked, capture_output=True, text=True).stdout
