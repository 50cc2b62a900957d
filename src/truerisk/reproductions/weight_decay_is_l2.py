"""Weight decay is L2 regularization for SGD, and is not for Adam.

With SGD the steps with a penalty, with coupled and with decoupled decay are the same; with Adam the
decay that passes through its denominator is not the decay beside it. Decoupled, the best learning
rate depends less on the decay.

How much it depends is the standard deviation, over the decays, of log₁₀ of the learning rate with
the lowest validation error at the end of training. Over seeds 0 to 2 Adam's was larger by
0.09 ± 0.1, from which eight others were thought to be enough. They leave it near the edge: the best
of ten rates by 200 samples hangs on the last bits, and the same seeds with sums in another order
have come to 0.10 [0.00, 0.21] and to 0.17 [0.01, 0.32].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exactly, mean, series, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

FORMULA = (
    "L2: w ← w − η A(∇g + λw)   decoupled: w ← w − η A(∇g) − ηλw   A: Adam's, or SGD's identity"
)
SOURCE = "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization"
COST = "3 min"
_STEPS = "data.batch_size:full,trainer.precision:'64-true',trainer.max_epochs:10"
QUICK = [
    "data.num_train=200",
    "trainer.max_epochs=10",
    "hydra.sweeper.grids=["
    f"{{optimizer:'sgd,adam,adamw',optimizer.lr:0.01,optimizer.weight_decay:0.01,{_STEPS}}},"
    "{optimizer:custom,optimizer._target_:pytorch_optimizer.SGDW,+optimizer.lr:0.01,"
    f"+optimizer.weight_decay:0.01,{_STEPS}}},"
    "{optimizer:adam,optimizer.lr:'1e-3,1e-2,1e-1',optimizer.weight_decay:'1e-4,1e-2',"
    "seed:'range(2)'},"
    "{optimizer:adamw,optimizer.lr:1e-3,optimizer.weight_decay:'1e-2,10.0',seed:'range(2)'},"
    "{optimizer:adamw,optimizer.lr:1e-2,optimizer.weight_decay:'1e-3,1.0',seed:'range(2)'},"
    "{optimizer:adamw,optimizer.lr:1e-1,optimizer.weight_decay:'1e-4,0.1',seed:'range(2)'}]",
]
SECTION = "Loshchilov & Hutter 2019, §2, propositions 1 and 2"


def stepwise(runs: Runs, optimizer: str) -> list[np.ndarray]:
    """The training risk after every step, of the runs on the whole training set."""
    found = runs.only("data.batch_size", "full").only("choices.optimizer", optimizer)
    return [series(run, "risk/train") for run in found]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest relative difference over the steps."""
    return float(np.max(np.abs(one - other) / one))


@claim(
    "SGD with a penalty, coupled, decoupled decay: training risk at every step; difference",
    source=SECTION,
    why="rounding in double precision, carried on for some tens of steps",
    high=1e-10,
)
def same_for_sgd(runs: Runs) -> Finding:
    """Relative, over all steps."""
    first, *others = [*stepwise(runs, "sgd"), *stepwise(runs, "custom")]
    return exactly(max(apart(first, other) for other in others))


@claim(
    "Adam with coupled and decoupled decay, the same λ: training risk; difference",
    source=SECTION,
    why="a thousandth is ten million times what rounding makes of the same steps",
    low=1e-3,
)
def different_for_adam(runs: Runs) -> Finding:
    """Relative, over all steps."""
    return exactly(apart(stepwise(runs, "adam")[0], stepwise(runs, "adamw")[0]))


class Map(NamedTuple):
    """Validation errors [decays, rates] of one seed."""

    decays: list[float]
    rates: list[float]
    errors: np.ndarray

    def best(self) -> np.ndarray:
        """log₁₀ of the best rate for every decay."""
        return np.log10(self.rates)[np.nanargmin(self.errors, axis=1)]


def decay(run: RunResult) -> float:
    """λ where it is coupled, the share that is lost in a step where it is not."""
    share = setting(run, "optimizer.weight_decay")
    if setting(run, "choices.optimizer") == "adamw":
        share *= setting(run, "optimizer.lr")
    return float(f"{share:.2g}")


def last_error(run: RunResult) -> float:
    """The validation error at the end of training; 1 where the run diverged."""
    return float(series(run, "error/val")[-1]) if run.status == "finished" else 1.0


def maps(runs: Runs, optimizer: str) -> list[Map]:
    """A map for every seed."""
    found = runs.only("choices.optimizer", optimizer)
    on_batches = Runs(run for run in found if setting(run, "data.batch_size") != "full")
    return [_map(of_seed) for of_seed in on_batches.by("seed.base").values()]


def _map(runs: Runs) -> Map:
    errors = {(decay(run), setting(run, "optimizer.lr")): last_error(run) for run in runs}
    decays, rates = (sorted({key[i] for key in errors}) for i in (0, 1))
    table = [[errors.get((d, r), math.nan) for r in rates] for d in decays]
    return Map(decays, rates, np.array(table))


@claim(
    "the best rate depends on the decay more for Adam with L2 than for AdamW; spreads",
    source="Loshchilov & Hutter 2019, §4.1, figure 2",
    why="a difference has a sign",
    low=0.0,
)
def decoupled_depends_less(runs: Runs) -> Finding:
    """Spread of log₁₀(best rate) over the decays, Adam's minus AdamW's; paired by seed."""
    pairs = zip(maps(runs, "adam"), maps(runs, "adamw"), strict=True)
    return mean([coupled.best().std() - decoupled.best().std() for coupled, decoupled in pairs])


def draw(runs: Runs, figure: Figure) -> None:
    """Validation error over learning rate and decay, the best rate of every decay marked."""
    panels = figure.subplots(1, 2)
    names = {"adam": "Adam, coupled (L2)", "adamw": "AdamW, decoupled"}
    drawn = [
        _heat(axes, maps(runs, o), name)
        for axes, (o, name) in zip(panels, names.items(), strict=True)
    ]
    panels[0].set_ylabel("log₁₀ decay")
    figure.colorbar(drawn[0], ax=list(panels), label="validation error", shrink=0.8)


def _heat(axes: Axes, seeds: list[Map], title: str) -> QuadMesh:
    errors = np.mean([seed.errors for seed in seeds], axis=0)
    x, y = np.log10(seeds[0].rates), np.log10(seeds[0].decays)
    drawn = axes.pcolormesh(x, y, errors, cmap="viridis", vmin=0.5, vmax=0.9, shading="nearest")
    axes.plot(x[np.nanargmin(errors, axis=1)], y, "o", color="white", markeredgecolor="black")
    axes.set_xlabel("log₁₀ learning rate")
    axes.set_title(title)
    axes.grid(visible=False)
    return drawn
