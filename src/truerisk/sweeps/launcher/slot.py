"""What of the machine one worker may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from truerisk.sweeps.cell import Cell


@dataclass(frozen=True)
class Slot:
    """A share of the cores, and a GPU or none."""

    cores: tuple[int, ...]
    gpu: str | None = None

    def take(self) -> None:
        """Pin this process to it: `truerisk.core.threads` counts the cores it finds."""
        import torch

        if hasattr(os, "sched_setaffinity") and self.cores:
            os.sched_setaffinity(0, self.cores)
            torch.set_num_threads(min(torch.get_num_threads(), len(self.cores)))
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


def slots(count: int | Literal["auto"], cells: Sequence[Cell]) -> list[Slot]:
    """The slots of this machine for some cells."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found = gpus() if any(map(_on_gpu, cells)) else []
    number = (len(found) or len(cores) or os.cpu_count() or 1) if count == "auto" else count
    number = min(number, len(cells))
    shares = [tuple(cores[i::number]) or tuple(cores) for i in range(number)]
    devices = [found[i % len(found)] if found else None for i in range(number)]
    return [Slot(share, gpu) for share, gpu in zip(shares, devices, strict=True)]


def _on_gpu(cell: Cell) -> bool:
    return cell.config["trainer"].get("accelerator", "auto") in ("auto", "gpu", "cuda")


def gpus() -> list[str]:
    """CUDA's devices as ``CUDA_VISIBLE_DEVICES`` names them, without starting CUDA here."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]
