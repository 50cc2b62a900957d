"""What diagnostics see without a run, and a run that all those that look at curvature see."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from truerisk.core.batch import Batch
from truerisk.data.split import TensorSplit
from truerisk.diagnostics.figure_arrays import read_arrays
from truerisk.diagnostics.history_plots import pivot_history
from truerisk.diagnostics.snapshot import Snapshot
from truerisk.objective import LocalObjective, Objective

CURVED = ["curvature", "spectrum", "taylor", "flatness", "landscape", "critical_point"]
RECIPE = [
    "data=iris",
    "data.batch_size=30",
    "model.width=16",
    "model.activation=tanh",
    "regularizer=[l2]",
    "optimizer=momentum",
    "trainer.precision=64-true",
    "trainer.max_epochs=4",
    "risk.train_samples=1000",
]
"""Three steps an epoch; 403 weights, too many to write their Hessian out; all samples measured."""


def looked(run, *overrides):
    """What a run's diagnostics logged and kept."""
    result = run(*overrides)
    tables = {name: pivot_history(result.history, name) for name in CURVED}
    kept = {f.stem: read_arrays(f) for f in result.run.figures.glob("*.npz")}
    return SimpleNamespace(result=result, tables=tables, kept=kept)


@pytest.fixture(scope="session")
def watched(run, assembled, last_weights):
    eyes = [f"diagnostics=[{','.join(CURVED)}]", "diagnostics.curvature.every.epochs=2"]
    spectrum = ["diagnostics.spectrum.every.steps=5", "diagnostics.landscape.points=5"]
    found = looked(run, *RECIPE, *eyes, *spectrum)
    recipe = assembled(*RECIPE)
    recipe.model.load_state_dict(last_weights(found.result))
    recipe.model.eval()
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    every = torch.arange(len(recipe.data.train))
    found.point = LocalObjective(objective, None, list(recipe.data.train.batches([every])))
    return found


@pytest.fixture(scope="session")
def hessian(watched):
    """∇²J at the last weights, by ordinary autograd."""
    point = watched.point
    (batch,) = point.batches
    return torch.autograd.functional.hessian(
        lambda w: point.objective(point.space.named(w), batch).objective, point.w
    )


@pytest.fixture(scope="session")
def on_function(run):
    """Logged and kept on a test function."""
    return lambda *overrides: looked(run, "data=none", *overrides)


@pytest.fixture(scope="session")
def symmetric_matrix():
    def build(*values):
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values),) * 2))[0]
        return torch.from_numpy(q @ np.diag(values) @ q.T)

    return build


def _seen(
    model,
    x,
    y,
    gradients=None,
    precision="64-true",
    context=nullcontext,
    scaler=None,
    m=1,
    block=1000,
):
    """What a diagnostic would see of a model and its samples in a run, without the run."""

    def squares(outputs, y):
        return (outputs - y).square().flatten(1).sum(1)

    task = SimpleNamespace(block_size=lambda shape: block)
    run = SimpleNamespace(
        recipe=SimpleNamespace(
            surrogate=SimpleNamespace(task=task),
            data=SimpleNamespace(info=SimpleNamespace(input_shape=tuple(x.shape[1:]))),
        ),
        objective=Objective(model.eval(), squares),
        parameters={n: p for n, p in model.named_parameters() if p.requires_grad},
        train_split=TensorSplit(x, y),
        measured_index=torch.arange(len(x)),
        step_size=m,
        step=1,
        loss_scaler=scaler,
        precision=precision,
        forward_context=context,
    )
    return Snapshot(run, gradients or {})


@pytest.fixture(scope="session")
def seen():
    return _seen


@pytest.fixture(scope="session")
def losses():
    """The loss of one sample, as `seen` has it."""

    def loss(model, x, y):
        batch = Batch(x[None], y[None])
        return (model(batch.x) - batch.y).square().sum()

    return loss
