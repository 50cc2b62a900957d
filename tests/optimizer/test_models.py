"""Optimizers with curvature descend on every kind of layer, in single precision."""

from __future__ import annotations

import pytest
import torch

MODELS = {"convolutions": "resnet", "recurrence": "lstm", "attention": "transformer"}
OPTIMIZERS = {
    "adahessian": [],
    "gauss_newton": ["optimizer.max_iter=5"],
    "kfac": [],
    "newton_cg": ["optimizer.max_iter=5"],
    "sophia": [],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_three_steps_on_one_batch_go_down(
    model, optimizer, stepping, micro_batches, objective_value
):
    given = ["data=mnist1d", "data.num_train=60", f"model={model}", "regularizer=[]"]
    given += [f"optimizer={optimizer}", *OPTIMIZERS[optimizer], "data.batch_size=full"]
    torch.manual_seed(0)
    recipe, step = stepping(*given, dtype=torch.float32)
    recipe.model.train()
    (micro,) = micro_batches(recipe, 1)
    before = objective_value(step, micro)
    for _ in range(3):
        step(micro)
    assert objective_value(step, micro) < before
