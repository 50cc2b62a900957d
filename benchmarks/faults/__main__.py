"""Print the table: kills, lost, doubled, changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.arguments import read_arguments

PARTS = ("single_runs", "stacked_ends", "workers", "tuning", "postgres", "overlapping")
"""Modules of this folder, each with ``tallies(place, quick)``."""


def main(given: Sequence[str]) -> int:
    names, quick = read_arguments("python -m benchmarks faults", __doc__, PARTS, given)
    import torch

    torch.set_num_threads(1)  # forks keep no threads
    wrong = 0
    print(f"{'what is done':<52}{'kills':>7}{'lost':>7}{'doubled':>9}{'changed':>9}", flush=True)
    for name in names:
        with TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as place:
            for row in import_module(f"benchmarks.faults.{name}").tallies(Path(place), quick):
                bad = row.lost + row.doubled + row.changed
                counts = f"{row.kills:>7}{row.lost:>7}{row.doubled:>9}{row.changed:>9}"
                print(f"{row.name:<52}{counts}", flush=True)
                for where in row.places:
                    print(f"  {where}", file=sys.stderr)
                wrong += bad
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
