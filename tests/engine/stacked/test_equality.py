"""A member is the run it would have been alone: to 1e-10 after 200 steps in double precision."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

SMALL = [
    "data=iris",
    "data.batch_size=15",
    "model.width=8",
    "model.depth=1",
    "trainer.precision=64-true",
    "trainer.max_epochs=34",
    "risk.every=8",
]
"""Six steps an epoch, 204 in all."""

SIGNALS = [
    "data.source.num_samples=50",
    "data.source.final_seq_length=12",
    "data.val=8",
    "data.batch_size=8",
    "trainer.precision=64-true",
    "trainer.max_epochs=50",
    "risk.every=8",
]
"""Four steps an epoch, 200 in all."""

IMAGES = ["data=digits", "data.num_train=60", "data.val=30", "data.test=30", *SIGNALS[3:]]
IMAGES[-1] = "trainer.max_epochs=25"

OPTIMIZERS = {
    "gd data.batch_size=full trainer.max_epochs=200 risk.every=20": ["optimizer.lr=0.2"],
    "sgd": ["optimizer.weight_decay=0.01"],
    "momentum": ["optimizer.momentum=0.5", "optimizer.dampening=0.3"],
    "nesterov": ["optimizer.momentum=0.5", "optimizer.weight_decay=0.01"],
    "adagrad": ["optimizer.lr_decay=0.01", "optimizer.initial_accumulator_value=0.1"],
    "rmsprop": ["optimizer.alpha=0.9", "optimizer.momentum=0.5"],
    "rmsprop optimizer.centered=true": ["optimizer.eps=1e-3"],
    "adadelta": ["optimizer.rho=0.8", "optimizer.eps=1e-4"],
    "adam": ["optimizer.betas=[0.8,0.99]", "optimizer.weight_decay=0.01"],
    "adam optimizer.amsgrad=true": ["optimizer.eps=1e-4"],
    "adamw": ["optimizer.weight_decay=0.2", "optimizer.lr=0.01"],
    "adam optimizer.amsgrad=true model.width=300": ["optimizer.weight_decay=0.01"],
    "adamw model.width=300": ["optimizer.betas=[0.8,0.99]", "optimizer.lr=0.01"],
    "adamax": ["optimizer.betas=[0.8,0.9]", "optimizer.weight_decay=0.01"],
    "nadam": ["optimizer.momentum_decay=0.01", "optimizer.weight_decay=0.01"],
    "nadam optimizer.decoupled_weight_decay=true": ["optimizer.weight_decay=0.01"],
    "radam": ["optimizer.betas=[0.8,0.9]", "optimizer.weight_decay=0.01"],
    "lion": ["optimizer.betas=[0.8,0.9]", "optimizer.weight_decay=0.01"],
    "adamw parametrization=mup parametrization.base.width=2": ["optimizer.weight_decay=0.2"],
    "sgd parametrization=mup parametrization.base.width=2": ["optimizer.lr=0.03"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_update_rule(same, optimizer):
    recipe = [*SMALL, *f"optimizer={optimizer}".split()]
    same([*recipe, "seed=1"], [*recipe, "seed=2", *OPTIMIZERS[optimizer]])


COMPILED_RULES = [name for name in OPTIMIZERS if "width=300" not in name]


@pytest.mark.parametrize("optimizer", COMPILED_RULES)
def test_every_update_rule_that_is_compiled(compiled, same, optimizer):
    recipe = [*SMALL, *SHORTER, *f"optimizer={optimizer}".split()]
    same([*recipe, "seed=1"], [*recipe, "seed=2", *OPTIMIZERS[optimizer]])
    assert compiled and all(compiled)


SHORTER = ["trainer.max_epochs=8"]
MODELS = {
    "linear": [o for o in SMALL if "width" not in o and "depth" not in o],
    "mlp_residual": [*SMALL, "model.depth=3"],
    "mlp": [*SMALL, "model.normalization=batch"],
    "cnn1d": [*SIGNALS, "model.width=4"],
    "cnn": [*IMAGES, "model.width=3"],
    "resnet": [*SIGNALS, "model.width=3", "model.stages=2"],
    "resnet model.shortcut=projection": [*SIGNALS, "model.width=3", "model.stages=2", *SHORTER],
    "wide_resnet": [*IMAGES, "model.width=3", "model.depth=10", "model.widen=1", *SHORTER],
    "vit": [*IMAGES, "model.width=8", "model.depth=1", "model.heads=2", *SHORTER],
    "rnn": SMALL,
    "rnn model.residual=true": SMALL,
    "lstm": [*SMALL, "model.width=4", "model.depth=2"],
    "gru": [*SMALL, "model.width=4", "model.readout=last"],
    "transformer": [*SMALL, "model.heads=2"],
}


@pytest.mark.parametrize("model", MODELS)
def test_every_model(same, model):
    recipe = [*MODELS[model], *f"model={model}".split()]
    same([*recipe, "seed=1"], [*recipe, "seed=2", "optimizer.lr=0.003"])


COMPILED = {
    "linear": ["loss.label_smoothing=0.1"],
    "mlp": ["model.normalization=none", "model.activation=gelu", "regularizer=[l2]"],
    "cnn1d": [],
    "rnn": [],
    "lstm": [],
    "gru": ["model.readout=mean"],
}


@pytest.mark.parametrize("model", COMPILED)
def test_so_it_is_where_steps_are_compiled(compiled, same, model):
    recipe = [*MODELS[model], f"model={model}", *SHORTER, *COMPILED[model]]
    same([*recipe, "seed=1"], [*recipe, "seed=2", "optimizer.lr=0.003"])
    assert compiled and all(compiled)


FEW = [*SMALL, "trainer.max_epochs=6", "risk.every=1"]
FEATURES = {
    "class weights": [["loss.weight=balanced", f"optimizer.lr={lr}"] for lr in (0.1, 0.3)],
    "schedules": [["scheduler=cosine", "scheduler.warmup=0.2"], ["scheduler=one_cycle"]],
    "plateau": [
        ["scheduler=plateau", "scheduler.patience=0", f"optimizer.lr={lr}"] for lr in (1, 0.3)
    ],
    "clipped norm": [[f"step.clip.norm={c}", "step.accumulate=2"] for c in (0.1, 0.5)],
    "clipped value": [[f"step.clip.value={c}"] for c in (0.01, 0.1)],
    "parameter groups": [
        ["optimizer=adamw", "param_groups=no_decay", f"optimizer.weight_decay={d}"]
        for d in (0.1, 1)
    ],
    "penalties": [
        [
            "regularizer=[l1,l2,elastic_net,group_lasso,orthogonality,entropy,input_gradient]",
            f"regularizer.l2.coefficient={x}",
            f"regularizer.elastic_net.l1_ratio={x}",
            f"regularizer.input_gradient.coefficient={x}",
        ]
        for x in (0.1, 0.3)
    ],
    "edited batches": [
        ["regularizer=[mixup,input_noise]", f"regularizer.mixup.alpha={a}"] for a in (0.3, 1)
    ],
    "a projection": [
        ["regularizer=[max_norm]", f"regularizer.max_norm.bound={b}"] for b in (0.3, 1)
    ],
    "an average": [
        ["regularizer=[ema]", "model.normalization=batch", f"regularizer.ema.decay={d}"]
        for d in (0.5, 0.9)
    ],
    "early stopping": [
        [
            "regularizer=[early_stopping]",
            "optimizer.lr=0.3",
            f"regularizer.early_stopping.patience={p}",
        ]
        for p in (1, 3)
    ],
    "losses and labels": [[f"loss.label_smoothing={e}", f"data.label_noise={e}"] for e in (0, 0.2)],
    "a margin": [["loss=hinge", f"loss.margin={m}"] for m in (1, 2)],
    "steps and rare looks": [
        ["risk.every=3", "trainer.max_steps=20", "trainer.max_epochs=-1", f"optimizer.lr={lr}"]
        for lr in (0.01, 0.1)
    ],
    "a tolerance": [
        [
            "optimizer=gd",
            "data.batch_size=full",
            "stop.gradient_norm=0.5",
            "trainer.max_epochs=30",
            f"optimizer.lr={lr}",
        ]
        for lr in (0.1, 0.5)
    ],
    "initializers": [["initializer=orthogonal"], ["initializer=lsuv"]],
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature(same, feature):
    same(*([*FEW, f"seed={i}", *more] for i, more in enumerate(FEATURES[feature])))


def test_augmented_images(same):
    """Each member draws its own views; how far they go may differ."""
    seen = "regularizer.augment."
    recipe = [*IMAGES, "model=cnn", "model.width=3", "regularizer=[augment]", f"{seen}white=16"]
    recipe += [f"{seen}policy=randaugment", f"{seen}brightness=0.3", "trainer.max_epochs=10"]
    more = [f"{seen}crop=1", f"{seen}magnitude=20", f"{seen}cutout=3"]
    same([*recipe, "seed=1"], [*recipe, "seed=2", *more])


class TiedNet(nn.Module):
    """Two layers of one weight, and a batch norm that may be frozen."""

    def __init__(self, input_shape, output_size, bias=True, frozen=False):
        super().__init__()
        width = input_shape[0]
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm, self.last = nn.BatchNorm1d(width), nn.Linear(width, output_size, bias)
        if frozen:
            self.norm.eval().requires_grad_(False)

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.second(torch.tanh(self.first(x))))))


@pytest.mark.parametrize("average", ["[]", "ema", "swa"])
@pytest.mark.parametrize("frozen", [False, True])
def test_tied_and_frozen_layers(same, monkeypatch, frozen, average):
    module = types.ModuleType("tied_net")
    module.TiedNet = TiedNet
    monkeypatch.setitem(sys.modules, "tied_net", module)
    recipe = [o for o in FEW if "model" not in o]
    recipe += ["model=linear", "model._target_=tied_net.TiedNet", f"+model.frozen={frozen}"]
    same(*([*recipe, f"regularizer={average}", f"seed={i}"] for i in (1, 2)))


def test_the_risk_under_a_known_p_and_a_regression(same):
    known = ["data=gaussians", "model=linear", "risk.true_samples=11000", *SMALL[4:5]]
    for recipe in ([*known, "trainer.max_epochs=1"], [*FEW, "data=diabetes", "loss=mse"]):
        same([*recipe, "seed=1"], [*recipe, "seed=2"])


def test_measuring_leaves_a_stack_alone(stack, last_weights):
    """Refreshing statistics draws dropout masks, but none of training's."""
    recipe = [*FEW[:5], "trainer.max_epochs=3", "model.normalization=batch"]
    recipe += ["regularizer=[dropout,mixup,swa]", "regularizer.swa.start=0.1"]
    often = stack(*([*recipe, "risk.every=1", f"seed={i}"] for i in (1, 2)))
    once = stack(*([*recipe, "risk.every=3", f"seed={i}"] for i in (1, 2)))
    for a, b in zip(often, once, strict=True):
        mine, theirs = last_weights(a), last_weights(b)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
