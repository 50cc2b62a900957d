"""``python -m benchmarks.seed_intervals``: how often intervals over seeds hold a recipe's risk.

Each of six quick recipes is trained with 200 seeds, stacked (seven minutes of one core). Their mean
is the truth; studies are draws of a few seeds from them, with replacement. The table is that of
docs/statistics.md.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence

import numpy as np

import truerisk
from truerisk.reports.seed_mean import estimate_columns, student_interval

SEEDS, STUDIES = 200, 20_000
SIZES = (3, 5, 10)
RECIPES = {
    "iris, mlp, 20 epochs": ("data=iris", "model=mlp", "trainer.max_epochs=20"),
    "diabetes, mlp": ("data=diabetes", "model=mlp", "loss=mse", "trainer.max_epochs=20"),
    "breast_cancer, linear": ("data=breast_cancer", "optimizer=sgd", "trainer.max_epochs=20"),
    "polynomial": (
        "data=polynomial", "model=polynomial", "loss=mse", "optimizer.lr=0.1",
        "trainer.max_epochs=30",
    ),
    "wine, mlp, sgd at rate 0.3": (
        "data=wine", "model=mlp", "optimizer=sgd", "optimizer.lr=0.3", "trainer.max_epochs=20",
    ),
    "iris, mlp, adam at 0.03 for 40 epochs": (
        "data=iris", "model=mlp", "optimizer.lr=0.03", "trainer.max_epochs=40",
    ),
}  # fmt: skip


def train_risks(overrides: Sequence[str], seeds: int = SEEDS) -> np.ndarray:
    """Test risks [seeds] of a recipe."""
    given = ("optimizer=adam", "model=linear", *overrides)
    chosen = {word.partition("=")[0]: word for word in given}
    always = (f"seed=range({seeds})", "hydra/launcher=vectorized", "figures=false", "report=false")
    with tempfile.TemporaryDirectory() as folder:
        swept = truerisk.sweep([*chosen.values(), *always], folder=folder)
        return np.array([run.summary["risk/test"].value for run in swept.runs])


def measure_coverage(risks: np.ndarray, size: int) -> tuple[float, float, float]:
    """Shares of studies whose interval holds the mean, Student's and as shown; how much wider."""
    draws = np.random.default_rng(size).choice(risks, (size, STUDIES))
    mean, low, high = estimate_columns(draws)
    stderr = draws.std(0, ddof=1) / math.sqrt(size)
    below, above = student_interval(mean, stderr, size - 1)
    truth = risks.mean()
    held = [np.mean((a <= truth) & (truth <= b)) for a, b in ((below, above), (low, high))]
    wider = np.median(high - low) / np.median(above - below) - 1
    return float(held[0]), float(held[1]), float(wider)


def main() -> None:
    """Print a row a recipe."""
    heads = ["skewness"] + [f"{n} seeds: Student's, shown, wider by" for n in SIZES]
    print("|".join(["recipe", *heads]))
    for name, overrides in RECIPES.items():
        risks = train_risks(overrides)
        rest = risks - risks.mean()
        cells = [f"{(rest**3).mean() / risks.std() ** 3:.1f}"]
        for size in SIZES:
            student, shown, wider = measure_coverage(risks, size)
            cells.append(f"{student:.1%}, {shown:.1%}, {wider:.0%}")
        print("|".join([name, *cells]), flush=True)


if __name__ == "__main__":
    main()
