"""Print the table: kills, lost, doubled, changed."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

PARTS = ("single_runs", "stacked_ends", "tuning", "postgres", "overlapping")
"""Modules of this folder, each with ``tallies(place, quick)``."""


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="some of the kills only")
    given = parser.parse_args()
    unknown = set(given.names) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    import torch

    torch.set_num_threads(1)  # forks keep no threads
    wrong = 0
    print(f"{'what is done':<52}{'kills':>7}{'lost':>7}{'doubled':>9}{'changed':>9}", flush=True)
    for name in given.names or PARTS:
        with TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as place:
            for row in import_module(f"benchmarks.faults.{name}").tallies(Path(place), given.quick):
                bad = row.lost + row.doubled + row.changed
                counts = f"{row.kills:>7}{row.lost:>7}{row.doubled:>9}{row.changed:>9}"
                print(f"{row.name:<52}{counts}", flush=True)
                for where in row.places:
                    print(f"  {where}", file=sys.stderr)
                wrong += bad
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main())
