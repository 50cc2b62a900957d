"""Every optimizer through the framework goes where a bare loop over the same class goes."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import pytorch_optimizer
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from truerisk.config.parts import conf_dir, list_options, option_folders
from truerisk.optimizer import needs_of

STEPS, WARMUP, CLIP, DECAY = 100, 7, 0.3, 0.01
RECIPE = [
    "data=iris",
    "data.batch_size=16",  # 90 training samples: steps of 16 + 16, 16 + 16 and 16 + 10
    "model.width=8",
    "model.activation=tanh",
    "regularizer=[]",
    "scheduler=cosine",
    f"scheduler.warmup={WARMUP}",
    "step.accumulate=2",
    "trainer.precision=64-true",
    "trainer.max_epochs=-1",
    f"trainer.max_steps={STEPS}",
]
FIRST_ORDER = {
    "adadelta": (torch.optim.Adadelta, {"lr": 0.5, "rho": 0.9, "eps": 1e-6}),
    "adafactor": (torch.optim.Adafactor, {"lr": 0.01, "d": 1.0}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.99)}),
    "adamax": (torch.optim.Adamax, {"lr": 0.01, "betas": (0.8, 0.99)}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.99)}),
    "custom": (torch.optim.ASGD, {"lr": 0.1, "t0": 20.0}),
    "gd": (torch.optim.SGD, {"lr": 0.5}),
    "lion": (pytorch_optimizer.Lion, {"lr": 0.002, "betas": (0.9, 0.99)}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "dampening": 0.1}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01, "momentum_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "prodigy": (pytorch_optimizer.Prodigy, {"lr": 1.0, "d0": 1e-3}),
    "radam": (torch.optim.RAdam, {"lr": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.005, "alpha": 0.9, "momentum": 0.5}),
    "schedule_free_adamw": (pytorch_optimizer.ScheduleFreeAdamW, {"lr": 0.02}),
    "sgd": (torch.optim.SGD, {"lr": 0.2}),
}
ELSEWHERE = {"lbfgs", "muon", "sam"}


def steps_on_a_gradient(name):
    """Whether an option needs no more than ∇J of the step's samples."""
    target = OmegaConf.load(conf_dir() / "optimizer" / f"{name}.yaml")._target_
    needs = needs_of(get_object(target))
    return not needs.closure and not needs.create_graph and not getattr(needs, "curvature", False)


OTHERS = [
    name
    for name in sorted(
        set(list_options("optimizer", option_folders())) - {*FIRST_ORDER, *ELSEWHERE}
    )
    if steps_on_a_gradient(name)
]
SOAP = ["optimizer.eps=1e-4", f"optimizer.precondition_frequency={STEPS}"]
"""It divides by the root mean square of the gradient in an eigenbasis. Softmax leaves one direction
without gradient, where that is rounding over ε; and bases are renewed in float32, to which a last
digit of float64 can make a difference."""


def overrides(name, numbers):
    shown = {k: list(v) if isinstance(v, tuple) else v for k, v in numbers.items()}
    plus = "++" if name == "custom" else ""
    given = [f"{plus}optimizer.{k}={v}" for k, v in (shown | {"weight_decay": DECAY}).items()]
    given += {
        "custom": ["optimizer._target_=torch.optim.ASGD"],
        "gd": ["data.batch_size=full"],  # two halves, accumulated
    }.get(name, [])
    return [*RECIPE, f"optimizer={name}", f"step.clip.norm={CLIP}", *given]


def cosine(t):
    """The factor on the learning rate of step t."""
    if t < WARMUP:
        return (t + 1) / WARMUP
    return (1 + math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP))) / 2


def gradient(model, micro_batches, clip=CLIP):
    """∇ of the mean loss over a step's samples, clipped; returns the loss and the norm before."""
    model.zero_grad()
    samples, total = sum(len(batch) for batch, _ in micro_batches), 0.0
    for batch, _ in micro_batches:
        losses = cross_entropy(model(batch.x), batch.y, reduction="none")
        loss = losses.mean() * (len(batch) / samples)
        loss.backward()
        total += loss.item()
    return total, clip_grad_norm_(model.parameters(), clip).item()


class Means:
    """The mean loss of an epoch's samples, and the mean gradient norm of its steps."""

    def __init__(self):
        self.losses, self.norms = [], []

    def add(self, loss, norm, samples):
        self.losses.append((loss * samples, samples))
        self.norms.append(norm)

    def close(self, epochs):
        losses, samples = zip(*self.losses, strict=True)
        epochs.append((sum(losses) / sum(samples), sum(self.norms) / len(self.norms)))
        self.__init__()


@contextmanager
def default_dtype(dtype):
    """Optimizers keep some scalars in the default dtype, and a run in float64 changes it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


def bare(recipe, micro_batches, optimizers, take):
    """A plain loop: ``take(step)`` descends; returns each epoch's mean loss and gradient norm."""
    starts = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    means, epochs, every = Means(), [], recipe.plan().steps_per_epoch
    for t, step in enumerate(micro_batches(recipe, STEPS)):
        for optimizer, lrs in zip(optimizers, starts, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * cosine(t)
        means.add(*take(step), sum(len(batch) for batch, _ in step))
        if (t + 1) % every == 0 or t + 1 == STEPS:
            means.close(epochs)
    return epochs


def descend(model, *optimizers):
    def take(step):
        loss, norm = gradient(model, step)
        for optimizer in optimizers:
            optimizer.step()
        return loss, norm

    return take


def assert_same(result, series, last_weights, model, epochs):
    for i, name in enumerate(["batch/loss", "grad_norm"]):
        mine = torch.tensor(series(result, name).to_numpy())
        theirs = torch.tensor([epoch[i] for epoch in epochs], dtype=torch.float64)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    mine, theirs = last_weights(result), model.state_dict()
    assert mine.keys() == theirs.keys()
    for name in theirs:
        assert mine[name].dtype == torch.float64
        torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FIRST_ORDER))
def test_first_order(name, run, assembled, micro_batches, series, last_weights):
    kind, numbers = FIRST_ORDER[name]
    given = overrides(name, numbers)
    result = run(*given)
    recipe = assembled(*given)
    before = recipe.model.output.weight.detach().clone()
    optimizer = kind(recipe.model.parameters(), **numbers, weight_decay=DECAY)
    if name == "schedule_free_adamw":
        optimizer.train()
    with default_dtype(torch.float64):
        epochs = bare(recipe, micro_batches, [optimizer], descend(recipe.model, optimizer))
    assert (recipe.model.output.weight - before).norm() > 0.05
    assert_same(result, series, last_weights, recipe.model, epochs)
    assert list(series(result, "lr/0"))[-1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_that_steps_on_a_gradient(
    name, run, assembled, micro_batches, series, last_weights
):
    """With the numbers of its own YAML."""
    given = [
        *RECIPE,
        f"optimizer={name}",
        f"step.clip.norm={CLIP}",
        *(SOAP if name == "soap" else []),
    ]
    recipe = assembled(*given)
    with default_dtype(torch.float64):
        optimizer = recipe.optimizer(recipe.model)
        epochs = bare(recipe, micro_batches, [optimizer], descend(recipe.model, optimizer))
    assert_same(run(*given), series, last_weights, recipe.model, epochs)


def test_muon(run, assembled, micro_batches, series, last_weights):
    given = overrides("muon", {"lr": 0.02, "adamw_lr": 0.01})
    recipe = assembled(*given)
    params = list(recipe.model.parameters())
    matrices = [p for p in params if p.ndim == 2]
    rest = [p for p in params if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=DECAY)
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=DECAY)
    epochs = bare(recipe, micro_batches, [muon, adamw], descend(recipe.model, muon, adamw))
    assert_same(run(*given), series, last_weights, recipe.model, epochs)


def test_sam(run, assembled, micro_batches, series, last_weights):
    rho = 0.1
    given = [*RECIPE, "optimizer=sam", f"optimizer.rho={rho}", f"step.clip.norm={CLIP}"]
    given += ["optimizer.base.lr=0.1", f"optimizer.base.weight_decay={DECAY}"]
    recipe = assembled(*given)
    params = list(recipe.model.parameters())
    base = torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=DECAY)

    def take(step):
        loss, before = gradient(recipe.model, step)
        norm = torch.stack([p.grad.square().sum() for p in params]).sum().sqrt()
        here = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p in params:
                p += rho * p.grad / norm
        gradient(recipe.model, step)
        with torch.no_grad():
            for p, w in zip(params, here, strict=True):
                p.copy_(w)
        base.step()
        return loss, before

    epochs = bare(recipe, micro_batches, [base], take)
    assert_same(run(*given), series, last_weights, recipe.model, epochs)


def test_lbfgs(run, assembled, micro_batches, last_weights):
    given = ["data=iris", "model.width=8", "model.activation=tanh", "optimizer=lbfgs"]
    given += ["optimizer.max_iter=7", "trainer.precision=64-true", "trainer.max_epochs=3"]
    result, recipe = run(*given), assembled(*given)
    ((batch, share),) = next(micro_batches(recipe, 1))
    assert len(batch) == recipe.data.num_train and share == 1
    params = list(recipe.model.parameters())
    optimizer = torch.optim.LBFGS(params, lr=1.0, max_iter=7, history_size=10)
    optimizer.param_groups[0]["line_search_fn"] = "strong_wolfe"

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(recipe.model(batch.x), batch.y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert optimizer.state[params[0]]["n_iter"] > 14
    for name, weight in last_weights(result).items():
        theirs = recipe.model.state_dict()[name]
        torch.testing.assert_close(weight, theirs, rtol=0, atol=1e-12)


def test_accumulated_step_is_the_step_on_all_its_samples(stepping, micro_batches):
    """Micro-batches of 16 and 10 samples weigh by their size."""
    given = ["data=iris", "data.batch_size=16", "model.width=8", "optimizer=momentum"]
    given += ["step.clip.norm=0.3", "regularizer=l2", "regularizer.l2.coefficient=0.1"]
    recipe, accumulated = stepping(*given, "step.accumulate=2")
    whole, plain = stepping(*given)
    sizes = set()
    for step in micro_batches(recipe, 30):
        sizes.add(tuple(len(batch) for batch, _ in step))
        accumulated(step)
        x = torch.cat([batch.x for batch, _ in step])
        y = torch.cat([batch.y for batch, _ in step])
        plain([(type(step[0][0])(x, y), 1.0)])
    assert sizes == {(16, 16), (16, 10)}
    pairs = zip(recipe.model.parameters(), whole.model.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
