"""``python -m benchmarks [NAME…] [--quick]``; ``faults`` has a table of its own."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.arguments import read_arguments
from benchmarks.table import show

BENCHMARKS = (
    "step", "large", "characters", "startup", "memory", "diagnostics", "optimizers", "vectorized",
    "study", "pool", "report",
)  # fmt: skip
"""Modules of this folder, each with ``rows(quick)``."""


def main() -> int | None:
    if sys.argv[1:2] == ["faults"]:
        from benchmarks.faults.__main__ import main as show_faults

        return show_faults(sys.argv[2:])
    names, quick = read_arguments("python -m benchmarks", __doc__, BENCHMARKS, sys.argv[1:])
    import torch

    torch.set_num_threads(1)
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        show(list(import_module(f"benchmarks.{name}").rows(quick)), name, quick)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
