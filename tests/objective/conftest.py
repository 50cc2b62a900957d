"""Tiny problems with every model of the project, and brute force to compare with."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from truerisk.core.batch import Batch
from truerisk.loss import adapt_loss
from truerisk.model import CNN, GRU, LSTM, MLP, RNN, CNN1d, Linear, ResNet, Transformer
from truerisk.objective import LocalObjective, Objective
from truerisk.regularizer import Dropout, SpectralNorm

torch.set_num_threads(1)

CLASSES = 3
NORMS = ("none", "batch", "layer", "group")
SMALL = {"width": 2, "activation": "tanh", "groups": 1}


def _builders():
    signal, image = (1, 6), (1, 4, 4)
    yield "linear", signal, lambda: Linear(signal, CLASSES)
    for norm in NORMS:
        mlp = {"width": 4, "groups": 2, "activation": "softplus", "normalization": norm}
        options = {**SMALL, "normalization": norm}
        yield f"mlp-{norm}", signal, lambda o=mlp: MLP(signal, CLASSES, **o)
        yield f"cnn1d-{norm}", signal, lambda o=options: CNN1d(signal, CLASSES, kernels=(3, 3), **o)
        yield f"cnn-{norm}", image, lambda o=options: CNN(image, CLASSES, depth=1, **o)
        yield f"resnet-{norm}", signal, lambda o=options: ResNet(signal, CLASSES, stages=2, **o)
    yield "mlp-residual", signal, lambda: MLP(signal, CLASSES, 4, residual=True, activation="gelu")
    for cell in (RNN, GRU, LSTM):
        name = cell.__name__.lower()
        yield name, signal, lambda c=cell: c(signal, CLASSES, width=2)
        deep = {"width": 2, "depth": 2, "bidirectional": False, "readout": "last"}
        yield f"{name}-deep", signal, lambda c=cell, o=deep: c(signal, CLASSES, **o)
    small = {"width": 4, "heads": 2, "depth": 1, "expansion": 1}
    for norm in ("layer", "none"):
        options = {**small, "normalization": norm}
        yield f"transformer-{norm}", signal, lambda o=options: Transformer(signal, CLASSES, **o)
    drop, spectral = Dropout(0.4).edit_model, SpectralNorm().edit_model
    yield "mlp-dropout", signal, lambda: drop(MLP(signal, CLASSES, 4, activation="tanh"))
    yield "cnn1d-dropout", signal, lambda: drop(CNN1d(signal, CLASSES, kernels=(3, 3), **SMALL))
    yield "transformer-dropout", signal, lambda: drop(Transformer(signal, CLASSES, **small))
    yield "gru-dropout", signal, lambda: GRU(signal, CLASSES, **deep, dropout=0.4)
    yield "mlp-spectral", signal, lambda: spectral(MLP(signal, CLASSES, 4, activation="tanh"))


BUILDERS = {name: (shape, build) for name, shape, build in _builders()}
MODELS = sorted(BUILDERS)
MOVING = ("batch", "dropout", "spectral")
"""What is another function in training mode."""
CASES = [(name, "eval") for name in MODELS if not name.endswith("dropout")]
CASES += [(name, "train") for name in MODELS if name.endswith(MOVING)]


class Case:
    """A model, its samples and its objective, without penalties."""

    def __init__(self, name, mode="eval", dtype=torch.float64, samples=7):
        shape, build = BUILDERS[name]
        torch.manual_seed(0)
        self.model = build().double()
        for m in self.model.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
        self.model.to(dtype).train(mode == "train")
        x = torch.randn(samples, *shape, dtype=torch.float64).to(dtype)
        self.batch = Batch(x, torch.arange(samples) % CLASSES)
        loss = nn.CrossEntropyLoss(reduction="none")
        self.objective = Objective(self.model, adapt_loss(loss, "classification", CLASSES))

    def point(self, batches=None):
        return LocalObjective(self.objective, None, batches or [self.batch])

    def outputs(self, w):
        """f(x; w) by ordinary autograd: neither `Objective` nor `Point`."""
        state, start = {}, 0
        for name, p in self.model.named_parameters():
            state[name] = w[start : start + p.numel()].view(p.shape)
            start += p.numel()
        state |= {name: b.clone() for name, b in self.model.named_buffers()}
        torch.manual_seed(0)
        with spectral_vectors_kept(self.model):
            return functional_call(self.model, state, (self.batch.x,))

    def losses(self, w):
        return cross_entropy(self.outputs(w), self.batch.y, reduction="none")

    def objective_at(self, w):
        return self.losses(w).mean()


@contextmanager
def spectral_vectors_kept(model):
    moved = [m for m in model.modules() if "SpectralNorm" in type(m).__name__ and m.training]
    for m in moved:
        m.eval()
    yield
    for m in moved:
        m.train()


def cut(batch, *sizes):
    """The same samples in several batches."""
    return [Batch(x, y) for x, y in zip(batch.x.split(sizes), batch.y.split(sizes), strict=True)]


class Bowl(nn.Module):
    """A function of a vector w of parameters, as a model with one sample and no data."""

    def __init__(self, f, *start):
        super().__init__()
        self.f, self.w = f, nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x):
        return self.f(self.w).expand(len(x), 1)


def at(f, *start, dtype=torch.float64):
    """The point ``start`` on f: ℝᵖ → ℝ."""
    objective = Objective(Bowl(f, *start).to(dtype), lambda outputs, y: outputs.squeeze(1))
    return LocalObjective(objective, None, [Batch(torch.zeros(1, 1), torch.zeros(1))])


@pytest.fixture(scope="session")
def case():
    return Case


@pytest.fixture(scope="session")
def split():
    return cut


@pytest.fixture(scope="session")
def point_on():
    return at


@pytest.fixture(scope="session")
def symmetric():
    """A symmetric matrix with given eigenvalues and random eigenvectors."""

    def build(*values, dtype=torch.float64):
        generator = torch.Generator().manual_seed(len(values))
        n = len(values)
        noise = torch.randn(n, n, generator=generator, dtype=torch.float64)
        q = torch.linalg.qr(noise).Q
        return (q * torch.tensor(values, dtype=torch.float64) @ q.T).to(dtype)

    return build


def pytest_generate_tests(metafunc):
    """All models, in a test that does not name its own."""
    named = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if {"model", "mode"} <= set(metafunc.fixturenames):
        metafunc.parametrize("model,mode", CASES)
    elif "model" in metafunc.fixturenames and "model" not in named:
        metafunc.parametrize("model", MODELS)
