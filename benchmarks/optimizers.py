"""What a step of each optimizer costs beside one of Adam's, and how soon each is down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import inf, isnan, nan

from benchmarks.rounds import interleaved
from benchmarks.row import Row

TASKS = {"mnist1d": 1.0, "digits": 0.1}
"""The train risk to be reached with an MLP of 20 units a layer, by data set."""

LIMIT = {False: 5.0, True: 2.0}
"""CPU seconds after which an optimizer is given up, in long and in quick rounds."""

MINI = ("adahessian", "kfac", "sgd_armijo", "shampoo", "soap", "sophia")
FULL = (
    "gauss_newton",
    "gd",
    "gd_backtracking",
    "gd_exact",
    "gd_wolfe",
    "hill_climbing",
    "lbfgs",
    "lbfgs_backtracking",
    "newton",
    "newton_cg",
)


def rows(quick: bool) -> Iterator[Row]:
    """Every optimizer with its default numbers."""
    rounds = 1 if quick else 3
    for data, risk in TASKS.items():
        yield from costs(data, rounds)
        yield from descents(data, risk, LIMIT[quick], rounds)


def recipe(data: str, optimizer: str, *overrides: str) -> list[str]:
    """The default recipe, smaller, so that a whole Hessian can take part."""
    common = [f"data={data}", "model.width=20", "regularizer=[]", f"optimizer={optimizer}"]
    return [*common, *overrides]


def costs(data: str, rounds: int) -> Iterator[Row]:
    """A step against Adam's on as many samples."""
    from benchmarks.descent import cost

    for names, batch in ((MINI, []), (FULL, ["data.batch_size=full"])):
        adam = partial(cost, recipe(data, "adam", *batch))
        contenders = {name: partial(cost, recipe(data, name)) for name in names}
        size = "all samples" if batch else "100"
        for name, pairs in interleaved(adam, contenders, rounds).items():
            micro = pairs.scaled(1e6)
            yield Row(f"{data}, {name}", f"Adam, {size}", "µs", micro)


def descents(data: str, risk: float, limit: float, rounds: int) -> Iterator[Row]:
    """The time and the steps to a train risk, against those of Adam on mini-batches."""
    from benchmarks.descent import Descent

    steps: dict[str, int] = {}

    def reach(name: str, limit: float = inf) -> float:
        descent = Descent(recipe(data, name))
        reached = descent.until(risk, limit)
        steps[name] = descent.steps
        return descent.seconds if reached else nan

    contenders = {name: partial(reach, name, limit) for name in (*MINI, *FULL)}
    for name, pairs in interleaved(partial(reach, "adam"), contenders, rounds).items():
        late = any(isnan(value) for value in pairs.measured)
        told = f"{'not in' if late else 'in'} {steps[name]}"
        peer = f"Adam in {steps['adam']}"
        yield Row(f"{data} to {risk:g}, {name} {told}", peer, "CPU s", pairs)
