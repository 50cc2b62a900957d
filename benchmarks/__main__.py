"""``python -m benchmarks [NAME…] [--quick]``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benchmarks.table import show

BENCHMARKS = (
    "step", "large", "startup", "memory", "diagnostics", "optimizers", "vectorized",
    "study", "pool", "report",
)  # fmt: skip
"""Modules of this folder, each with ``rows(quick)``."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    import torch

    torch.set_num_threads(1)
    for name in given.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        show(list(import_module(f"benchmarks.{name}").rows(given.quick)), name, given.quick)


if __name__ == "__main__":
    main()
