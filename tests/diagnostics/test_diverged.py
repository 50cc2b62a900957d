"""A run that leaves the finite numbers is told to have diverged, whatever looks at it."""

from __future__ import annotations

import pytest

import truerisk

EYES = ["curvature", "spectrum", "taylor", "flatness", "landscape", "critical_point"]
LOOK = [f"diagnostics=[{','.join(EYES)}]", *(f"diagnostics.{n}.every.steps=1" for n in EYES)]
RECIPES = {
    "a network": ["data=iris", "data.batch_size=full", "model.width=4", "optimizer.lr=1e20"],
    "a function": ["data=none", "model=rosenbrock", "optimizer.lr=10"],
}


@pytest.mark.parametrize("what", RECIPES)
def test_diverging(what, tmp_path):
    recipe = [*RECIPES[what], "optimizer=gd", "trainer.max_epochs=5", *LOOK]
    result = truerisk.train(recipe, folder=tmp_path / "run")
    assert result.status == "diverged"
    assert (result.run.figures / "curvature.png").exists()
