"""Train in this process, then print its peak memory in MiB: ``python -m benchmarks.peak``."""

from __future__ import annotations

import importlib
import resource
import sys
from pathlib import Path


def mebibytes(line: str = "VmHWM") -> float:
    """The peak of the resident set since this program began, or another line of its status.

    On Linux ``getrusage`` carries over the peak of the process that started this one, which
    ``VmHWM`` does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(s.split(":", 1) for s in status.read_text().splitlines())
        return int(lines[line].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    import torch

    from benchmarks.task import TASKS

    torch.set_num_threads(1)
    loop, task, epochs = sys.argv[1:]
    importlib.import_module(f"benchmarks.{loop}").train(TASKS[task], int(epochs))
    print(mebibytes())
