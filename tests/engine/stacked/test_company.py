"""A member's numbers are the same to the bit, whoever else is in its stack."""

from __future__ import annotations

import pytest
import torch

from truerisk.engine.stacked import measuring

IRIS = ["data=iris", "data.batch_size=13", "model.depth=1", "trainer.max_epochs=3"]
SIGNALS = [
    *("data=mnist1d", "data.source.num_samples=75", "data.source.final_seq_length=11"),
    *("data.val=21", "data.batch_size=9", "trainer.max_epochs=2"),
]
IMAGES = ["data=digits", "data.num_train=45", "data.val=31", "data.test=30", *SIGNALS[4:]]
# sizes that no run of 8 or 16 numbers divides
RECIPES = {
    "mlp": [*IRIS, "model.width=7", "regularizer=[dropout,l2]"],
    "mlp of gelu": [*IRIS, "model.width=13", "model.activation=gelu", "optimizer=radam"],
    "mlp, batch norm": [*IRIS, "model.width=7", "model.normalization=batch", "optimizer=nadam"],
    "mlp, layer norm": [*IRIS, "model.width=7", "model.normalization=layer", "regularizer=[ema]"],
    "mlp in double": [*IRIS, "model.width=5", "model.activation=tanh", "trainer.precision=64-true"],
    "mlp in bfloat16": [*IRIS, "model.width=7", "trainer.precision=bf16-mixed"],
    "regression": ["data=diabetes", *IRIS[1:], "model.width=9", "loss=mse", "regularizer=[]"],
    "binary cross-entropy": [*IRIS, "model.width=9", "loss=bce", "regularizer=[mixup]"],
    "softmax": [*IRIS[:2], *IRIS[3:], "model=linear", "loss.label_smoothing=0.1"],
    "cnn1d": [*SIGNALS, "model=cnn1d", "model.width=3"],
    "cnn": [*IMAGES, "model=cnn", "model.width=3"],
    "resnet": [*SIGNALS, "model=resnet", "model.width=3", "model.stages=2"],
    "vit": [*IMAGES, "model=vit", "model.width=6", "model.depth=1", "model.heads=2"],
    "rnn": [*IRIS, "model=rnn", "model.width=7"],
    "lstm": [*IRIS, "model=lstm", "model.width=3"],
    "gru": [*IRIS, "model=gru", "model.width=5", "regularizer=[dropout]"],
    "transformer": [*IRIS, "model=transformer", "model.width=6", "model.heads=2"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_member_is_the_same_in_any_company(stack, last_weights, name):
    assert_same_in_company(stack, last_weights, name)


@pytest.mark.parametrize("name", ["mlp", "mlp in double", "regression", "cnn1d", "gru"])
def test_so_it_is_where_steps_are_compiled(compiled, stack, last_weights, name):
    assert_same_in_company(stack, last_weights, name)
    assert compiled and all(compiled)


@pytest.mark.parametrize("name", ["mlp", "mlp, batch norm", "softmax", "cnn", "gru", "vit"])
def test_nor_does_it_matter_whether_they_have_its_data(stack, last_weights, name):
    assert_same_beside_other_data(stack, last_weights, name)


@pytest.mark.parametrize("name", ["mlp", "cnn1d"])
def test_nor_does_it_where_steps_are_compiled(compiled, monkeypatch, stack, last_weights, name):
    monkeypatch.setattr(measuring, "LEAST", 1)
    monkeypatch.setattr(measuring, "INPUTS", 1)  # of other data, one member at a time
    assert_same_beside_other_data(stack, last_weights, name)
    assert compiled and all(compiled)


def assert_same_beside_other_data(stack, last_weights, name):
    own, *others = [
        [*RECIPES[name], f"seed.base={base}", f"seed.data={data}"]
        for base, data in ((0, 0), (1, 0), (2, 1))
    ]
    mine, theirs = (stack(own, other)[0] for other in others)
    assert mine.run.metrics.read_text() == theirs.run.metrics.read_text()
    assert mine.summary == theirs.summary
    weights = last_weights(theirs)
    assert all(torch.equal(w, weights[key]) for key, w in last_weights(mine).items())


def assert_same_in_company(stack, last_weights, name):
    seeds = [[*RECIPES[name], f"seed={seed}"] for seed in range(5)]
    whole = stack(*seeds)
    # where it ends, in an odd place, first, and alone
    for rows in ([0, 1], [4, 2, 3], [1]):
        for row, other in zip(rows, stack(*(seeds[row] for row in rows)), strict=True):
            assert other.run.metrics.read_text() == whole[row].run.metrics.read_text()
            assert other.summary == whole[row].summary
            mine, theirs = last_weights(whole[row]), last_weights(other)
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
