"""A run with every diagnostic takes the very steps of one without."""

from __future__ import annotations

import pytest
import torch

from truerisk.config.parts import conf_dir, list_options

RECIPES = {
    "plain": [],
    "mid-epoch": ["trainer.max_epochs=2"],
    "bfloat16": ["trainer.precision=bf16-mixed"],
    "second derivatives": ["optimizer=adahessian", "regularizer=[dropout,spectral_norm]"],
    "schedule-free": ["optimizer=schedule_free_adamw", "regularizer=[dropout]"],
}
NOISY = [
    "data=iris",
    "data.batch_size=23",
    "model.width=8",
    "model.normalization=batch",
    "regularizer=[dropout,mixup]",
    "optimizer=momentum",
    "trainer.max_epochs=2",
]
"""Everything that draws random numbers, or has a state that a forward pass moves."""

OTHERS = ("attention", "recurrence")
"""Those that look at layers which an MLP does not have."""
ALL = [name for name in list_options("diagnostics", (conf_dir(),)) if name not in OTHERS]
ONCE = ["lr_range"]
"""Of those, the ones that look at the initial weights alone."""


QUICK = [
    "diagnostics.spectrum.steps=8",
    "diagnostics.landscape.points=3",
    "diagnostics.critical_point.points=3",
]
"""What would take long and is the same for any number."""


def every(names, steps):
    eyes = [f"diagnostics.{n}.every.steps={steps}" for n in names if n not in ONCE]
    return [f"diagnostics=[{','.join(names)}]", *eyes, *QUICK]


def state(result):
    saved = torch.load(result.run.last, weights_only=True)
    optimizer = saved["optimizer_states"][0]["state"]
    moved = {f"{i}/{k}": v for i, s in optimizer.items() for k, v in s.items()}
    tensors = {**saved["state_dict"], **moved, "rng": saved["truerisk"]["rng"][0]["torch"]}
    return {name: torch.as_tensor(t) for name, t in tensors.items() if t is not None}


@pytest.mark.parametrize("name", RECIPES)
def test_weights_statistics_momenta_and_generators(name, run):
    recipe = [*NOISY, *RECIPES[name]]
    # whose steps take more than a gradient
    names = [n for n in ALL if name != "second derivatives" or n not in ONCE]
    looks = every(names, 2 if name == "mid-epoch" else "null")
    plain, watched = run(*recipe), run(*recipe, *looks)
    mine, theirs = state(plain), state(watched)
    assert mine.keys() == theirs.keys()
    assert [n for n in mine if not torch.equal(mine[n], theirs[n])] == []
    rows = watched.history
    own = rows[rows.name.str.partition("/")[0].isin(names)]
    assert set(own.name.str.partition("/")[0]) == set(names)
    same = rows[~rows.index.isin(own.index)].reset_index(drop=True)
    assert same.equals(plain.history)
