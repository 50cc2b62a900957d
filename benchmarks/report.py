"""How long a report takes: 1,000 runs of 100 epochs."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from benchmarks.process import seconds
from benchmarks.rounds import interleaved
from benchmarks.row import Row

EPOCHS, SEEDS = 100, 10
RATES = [10 ** (-4 + i / 5) for i in range(25)]
OPTIMIZERS = ("SGD", "Adam", "RMSprop", "Adagrad")


def rows(quick: bool) -> Iterator[Row]:
    """``truerisk report`` against reading the same histories with pandas, which is the least."""
    with tempfile.TemporaryDirectory() as place:
        study = Path(place) / "study"
        write_study(study, RATES[:3] if quick else RATES)
        least = partial(seconds, "-c", READ, str(study))
        ours = partial(seconds, "-m", "truerisk", "report", str(study))
        for what, pairs in interleaved(least, {"truerisk report": ours}, 1 if quick else 3).items():
            yield Row(what, "pandas reads the files", "s", pairs)


READ = """
import sys, pathlib, pandas
for file in pathlib.Path(sys.argv[1]).rglob("metrics.csv"):
    pandas.read_csv(file)
"""


def write_study(folder: Path, rates: list[float]) -> None:
    """A run's files for every optimizer, rate and seed, as large as real ones."""
    draw = random.Random(0)
    for optimizer in OPTIMIZERS:
        for rate in rates:
            for seed in range(SEEDS):
                write_run(folder / f"{optimizer}-{rate:.3g}-{seed}", optimizer, rate, seed, draw)


def write_run(folder: Path, optimizer: str, rate: float, seed: int, draw: random.Random) -> None:
    """A run's files."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(optimizer, rate, seed)))
    risk = 0.5 + abs(rate - 0.01) ** 0.2 + 0.05 * draw.gauss(0, 1)
    risks = {"train": risk - 0.1, "val": risk, "test": risk + 0.01 * draw.gauss(0, 1)}
    summary = {f"risk/{k}": v for k, v in risks.items()}
    summary |= {f"error/{k}": v / 4 for k, v in risks.items()}
    found = {k: {"value": v, "stderr": 0.01, "epoch": EPOCHS} for k, v in summary.items()}
    for name, content in (
        ("metadata", {"command": ["truerisk", "train"], "started": ""}),
        ("status", {"status": "finished", "reason": ""}),
        ("summary", found),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "metrics.csv").write_text("step,epoch,name,value\n" + history(summary, draw))


def history(summary: dict[str, float], draw: random.Random) -> str:
    """Sixteen numbers an epoch, as a run logs them."""
    names = [name for name in summary if "test" not in name]
    others = ["risk/gap", "objective", "penalty", "lr/0", "batch/loss", "grad_norm"]
    names += [*(f"{name}/stderr" for name in [*names, "risk/gap"]), *others]
    lines = (
        f"{40 * e},{e},{name},{summary.get(name, 0.1) * (1 + 1 / (1 + e)) + 1e-3 * draw.random()!r}"
        for e in range(EPOCHS + 1)
        for name in names
    )
    return "\n".join(lines) + "\n"


def config(optimizer: str, rate: float, seed: int) -> dict[str, object]:
    """As many keys as a real configuration has."""
    filler = {f"key{i}": i for i in range(10)}
    groups = ("model", "trainer", "initializer", "scheduler", "loss")
    named = {g: {"_target_": f"truerisk.{g}.Part", **filler} for g in groups}
    streams = dict.fromkeys(("init", "data", "order", "noise"))
    return {
        **named,
        "choices": {"optimizer": optimizer.lower(), "data": "mnist1d", "model": "mlp"},
        "data": {"_target_": "truerisk.data.DataModule", "batch_size": 100, "val": 0.2},
        "optimizer": {"_target_": f"torch.optim.{optimizer}", "lr": rate, "weight_decay": 0.0},
        "regularizer": {},
        "seed": {"base": seed, **streams},
    }
