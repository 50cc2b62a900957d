"""The same numbers three ways: a member's own objective, plain vmap, and what training uses."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from truerisk.assemble import assemble
from truerisk.config.compose import compose
from truerisk.core.batch import Batch
from truerisk.engine.stacked import backend
from truerisk.engine.stacked.reference import ReferenceObjective
from truerisk.engine.stacked.stacked_objective import StackedObjective
from truerisk.engine.stacked.substitution import differing_numbers
from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.traced_function import PATIENCE
from truerisk.objective import Objective

MEMBERS, SAMPLES = 3, 6
TABLE = ["data=iris", "model.width=8", "model.depth=1"]
SIGNALS = ["data.source.num_samples=50", "data.source.final_seq_length=12", "data.val=8"]
IMAGES = ["data=digits", "data.num_train=60", "data.val=30", "data.test=30"]

MODELS = {
    "linear": TABLE[:1],
    "mlp_residual": [*TABLE, "model.depth=3"],
    "mlp": [*TABLE, "model.normalization=batch"],
    "cnn1d": [*SIGNALS, "model.width=4"],
    "cnn": [*IMAGES, "model.width=3"],
    "resnet": [*SIGNALS, "model.width=3", "model.stages=2"],
    "rnn": TABLE,
    "rnn model.residual=true": TABLE,
    "lstm": [*TABLE, "model.width=4", "model.depth=2"],
    "gru": [*TABLE, "model.width=4", "model.readout=last"],
    "transformer": [*TABLE, "model.heads=2"],
}
MLP = ["model=mlp", *TABLE]
FEATURES = {
    "parameter penalties": [
        [
            "regularizer=[l1,l2,elastic_net,group_lasso,orthogonality]",
            f"regularizer.l2.coefficient={x}",
            f"regularizer.elastic_net.l1_ratio={x}",
        ]
        for x in (0.1, 0.2, 0.3)
    ],
    "function penalties": [
        ["regularizer=[entropy,input_gradient]", f"regularizer.input_gradient.coefficient={x}"]
        for x in (0.1, 0.2, 0.3)
    ],
    "label smoothing": [[f"loss.label_smoothing={x}"] for x in (0, 0.1, 0.2)],
    "a margin": [["loss=hinge", f"loss.margin={x}"] for x in (1, 2, 3)],
    "logistic": [["loss=bce"]] * 3,
    "regression": [["data=diabetes", "loss=huber"]] * 3,
    "absolute error": [["data=diabetes", "loss=mae"]] * 3,
}


def stacked(recipes, batches):
    """Weights, buffers and a batch of several recipes as rows of tensors."""
    members = [dict(recipe.model.named_parameters()) for recipe in recipes]
    params = {n: torch.stack([own[n].detach() for own in members]) for n in members[0]}
    buffers = [dict(recipe.model.named_buffers()) for recipe in recipes]
    return SimpleNamespace(
        params={name: p.requires_grad_() for name, p in params.items()},
        buffers={n: torch.stack([own[n].clone() for own in buffers]) for n in buffers[0]},
        batch=Batch(torch.stack([b.x for b in batches]), torch.stack([b.y for b in batches])),
    )


def each_by_itself(recipes, batches):
    """J, ∇J, and losses in eval mode, of each recipe's own objects by ordinary autograd."""
    rows = []
    for recipe, batch in zip(recipes, batches, strict=True):
        objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        value = objective(None, batch)
        weights = list(recipe.model.parameters())
        gradient = torch.autograd.grad(value.objective, weights, allow_unused=True)
        gradient = [
            torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradient, strict=True)
        ]
        recipe.model.eval()
        with torch.no_grad():
            losses = objective(None, batch).losses
        recipe.model.train()
        rows.append((value.objective.detach(), losses, *gradient))
    return [torch.stack(row) for row in zip(*rows, strict=True)]


def mapped(kind, recipes, batches, calls=1):
    """The same by an objective of stacked tensors, which may find the way at a later call."""
    rows = stacked(recipes, batches)
    first, like = recipes[0].model, next(iter(rows.params.values()))
    objective = kind(recipes[0], differing_numbers(recipes), DropoutStreams([1] * MEMBERS), like)
    for _ in range(calls):
        buffers = {name: buffer.clone() for name, buffer in rows.buffers.items()}
        found = objective.gradient(rows.params, buffers, rows.batch, 1.0)
    first.eval()
    state = {name: p.detach() for name, p in rows.params.items()} | buffers
    with torch.no_grad():
        losses = objective.measure(state, rows.batch, slice(0, MEMBERS))["losses"]
    first.train()
    return [found.objective, losses, *found.parts]


def assembled(*overrides):
    """Recipes in double precision, and the first samples of each."""
    recipes = [
        assemble(compose([*own, f"seed={seed}", "trainer.precision=64-true"]))
        for seed, own in enumerate(overrides)
    ]
    batches = []
    for recipe in recipes:
        recipe.model.double()
        recipe.surrogate.double()
        batch = next(recipe.data.train.batches([torch.arange(SAMPLES)]))
        y = batch.y.double() if batch.y.is_floating_point() else batch.y
        batches.append(Batch(batch.x.double(), y))
    return recipes, batches


def assert_equal_three_ways(recipes, batches, calls=1):
    plain = mapped(ReferenceObjective, recipes, batches)
    fast = mapped(StackedObjective, recipes, batches, calls)
    alone = each_by_itself(recipes, batches)
    for ours, reference, expected in zip(fast, plain, alone, strict=True):
        torch.testing.assert_close(reference, expected, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_every_model(model):
    recipe = [*MODELS[model], *f"model={model}".split()]
    assert_equal_three_ways(*assembled(recipe, recipe, recipe))


@pytest.mark.parametrize("feature", FEATURES)
def test_every_penalty_and_loss(feature):
    assert_equal_three_ways(*assembled(*([*MLP, *more] for more in FEATURES[feature])))


def test_operations_that_have_been_recorded():
    members = assembled(*([*MLP, *more] for more in FEATURES["parameter penalties"]))
    assert_equal_three_ways(*members, calls=PATIENCE + 2)


def test_dropout_is_another_draw_of_the_same():
    """Half of ten thousand units, by either: the means differ by chance alone."""
    recipes, batches = assembled(*[[*MLP, "regularizer=[dropout]", "model.width=2000"]] * 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        values = [
            mapped(kind, recipes, batches)[0] for kind in (ReferenceObjective, StackedObjective)
        ]
    assert not torch.equal(*values)
    torch.testing.assert_close(*values, rtol=0.1, atol=0)


def test_a_whole_run_may_be_trained_by_the_reference(stack, distance):
    recipes = [
        [*TABLE, "data.batch_size=30", "trainer.max_epochs=4", "trainer.precision=64-true", *more]
        for more in (["seed=1"], ["seed=2", "optimizer.lr=0.01"])
    ]
    fast = stack(*recipes)
    with mock.patch.object(backend, "StackedObjective", ReferenceObjective):
        plain = stack(*recipes)
    for ours, theirs in zip(fast, plain, strict=True):
        apart = distance(ours, theirs)
        assert max(apart.weights, apart.records) < 1e-10
