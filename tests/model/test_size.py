"""Parameter counts against closed forms, and sizes that cannot be."""

from __future__ import annotations

import pytest
import torch

from truerisk.assemble import build_with
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.model import (
    CNN,
    GRU,
    LSTM,
    MLP,
    RNN,
    CNN1d,
    Linear,
    ResNet,
    Transformer,
    VisionTransformer,
    WideResNet,
)

SIGNAL = (1, 40)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "model,expected",
    [
        (Linear(SIGNAL, 10), 410),
        (MLP(SIGNAL, 10), 15210),
        (MLP(SIGNAL, 10, residual=True), 15210),
        (CNN1d(SIGNAL, 10), 5210),
        (GRU(SIGNAL, 10, width=6, bidirectional=True, readout="flatten"), 5134),
    ],
)
def test_counts_of_the_mnist1d_paper(model, expected):
    assert count(model) == expected


@pytest.mark.parametrize("cell,gates", [(RNN, 1), (GRU, 3), (LSTM, 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_counts(cell, gates, directions):
    h, c, depth, k = 5, 3, 2, 4
    model = cell((c, 20), k, width=h, depth=depth, bidirectional=directions == 2, readout="last")
    first = gates * (h * c + h * h + 2 * h)
    second = gates * (h * directions * h + h * h + 2 * h)
    assert count(model) == directions * (first + second) + k * (directions * h + 1)


@pytest.mark.parametrize("normalization,extra", [("none", 1), ("layer", 3), ("group", 3)])
def test_mlp_counts(normalization, extra):
    model = MLP((7,), 3, widths=[8, 4], normalization=normalization, groups=2)
    assert count(model) == 7 * 8 + 8 * 4 + 4 * 3 + 3 + extra * (8 + 4)


def test_batch_normalization_takes_the_place_of_the_bias():
    assert count(MLP((7,), 3, widths=[8], normalization="batch")) == 7 * 8 + 2 * 8 + 8 * 3 + 3


def test_no_bias_leaves_only_matrices():
    for model in (Linear, MLP, CNN1d, RNN, LSTM, GRU):
        assert all(p.ndim > 1 for p in model(SIGNAL, 10, bias=False).parameters())


def test_cnn_counts():
    weights = 9 * (3 * 16 + 16 * 32) + 32 * (9 // 4) * (13 // 4) * 10
    assert count(CNN((3, 9, 13), 10)) == weights + 16 + 32 + 10


@pytest.mark.parametrize("shape,taps", [((2, 40), 3), ((2, 8, 8), 9)])
def test_resnet_counts(shape, taps):
    model = ResNet(shape, 10, width=4, stages=2, depth=2, normalization="none")
    weights = taps * (2 * 4 + 4 * 4 * 4 + 4 * 8 + 3 * 8 * 8) + 8 * 10
    assert count(model) == weights + 5 * 4 + 4 * 8 + 10


def test_transformer_counts():
    e, f, steps, k = 8, 24, 40, 10
    attention = 4 * e * e + 3 * e
    layer = attention + 2 * e * f + f + e + 4 * e
    expected = (e + e) + steps * e + 3 * layer + 2 * e + k * e + k
    assert count(Transformer(SIGNAL, k, width=e, depth=3, heads=2, expansion=3)) == expected


CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
RESNET18 = {"width": 64, "stages": 4, "depth": 2, "shortcut": "projection"}
PUBLISHED = {
    # in millions, as far as they are told: He et al. 2016, table 6
    "ResNet-20": (lambda: ResNet(CIFAR, 10, depth=3), 0.27, 0.005),
    "ResNet-32": (lambda: ResNet(CIFAR, 10, depth=5), 0.46, 0.005),
    "ResNet-44": (lambda: ResNet(CIFAR, 10, depth=7), 0.66, 0.005),
    "ResNet-56": (lambda: ResNet(CIFAR, 10, depth=9), 0.85, 0.005),
    "ResNet-110": (lambda: ResNet(CIFAR, 10, depth=18), 1.7, 0.05),
    # the count of the form for small images that is in wide use
    "ResNet-18": (lambda: ResNet(CIFAR, 10, **RESNET18), 11.173962, 0),
    # Zagoruyko & Komodakis 2016, tables 3 and 5
    "WRN-40-1": (lambda: WideResNet(CIFAR, 10, depth=40, widen=1), 0.6, 0.05),
    "WRN-40-4": (lambda: WideResNet(CIFAR, 10, depth=40, widen=4), 8.9, 0.05),
    "WRN-16-8": (lambda: WideResNet(CIFAR, 10, depth=16, widen=8), 11.0, 0.05),
    "WRN-22-8": (lambda: WideResNet(CIFAR, 10, depth=22, widen=8), 17.2, 0.05),
    "WRN-28-10": (lambda: WideResNet(CIFAR, 10, depth=28, widen=10), 36.5, 0.05),
    # Touvron et al. 2021 and Dosovitskiy et al. 2021, with the keys' biases that there are none of
    "ViT-Ti": (lambda: VisionTransformer(IMAGENET, 1000, 16), 5.717416 - 12 * 192e-6, 1e-9),
    "ViT-S": (
        lambda: VisionTransformer(IMAGENET, 1000, 16, width=384, heads=6),
        22.050664 - 12 * 384e-6,
        1e-9,
    ),
    "ViT-B": (
        lambda: VisionTransformer(IMAGENET, 1000, 16, width=768, heads=12),
        86.567656 - 12 * 768e-6,
        1e-9,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    build, millions, rounding = PUBLISHED[name]
    with torch.device("meta"):  # without the memory
        assert count(build()) / 1e6 == pytest.approx(millions, abs=rounding, rel=1e-12)


def test_options_are_the_published_networks():
    for option, expected in (("resnet20", 269_722), ("resnet18", 11_173_962)):
        node = compose([f"model={option}"]).model
        with torch.device("meta"):
            assert count(build_with(node, input_shape=CIFAR, output_size=10)) == expected


@pytest.mark.parametrize(
    "build,key",
    [
        (lambda: MLP(SIGNAL, 10, width=0), "model.width"),
        (lambda: MLP(SIGNAL, 10, width=2.5), "model.width"),
        (lambda: MLP(SIGNAL, 10, depth=-1), "model.depth"),
        (lambda: MLP(SIGNAL, 10, widths=100), "model.widths"),
        (lambda: MLP(SIGNAL, 10, widths=[10, 0]), "model.widths"),
        (lambda: MLP(SIGNAL, 10, activation="rleu"), "did you mean 'relu'"),
        (lambda: MLP(SIGNAL, 10, normalization="bach"), "did you mean 'batch'"),
        (lambda: MLP(SIGNAL, 10, normalization="group", groups=3), "model.groups=3"),
        (lambda: MLP(SIGNAL, 10, normalization="group", groups=100), "model.groups=100"),
        (lambda: CNN1d(SIGNAL, 10, normalization="group", groups=4), "possible: 1, 5, 25"),
        (lambda: CNN1d((1, 2), 10), "model.kernels"),
        (lambda: CNN1d(SIGNAL, 10, kernels=[]), "model.kernels"),
        (lambda: CNN1d(SIGNAL, 10, stride=0), "model.stride"),
        (lambda: CNN((1, 8, 8), 10, depth=4), "at most model.depth=3"),
        (lambda: CNN((1, 8, 8), 10, pooling="mean"), "model.pooling"),
        (lambda: ResNet(SIGNAL, 10, stages=0), "model.stages"),
        (lambda: ResNet(SIGNAL, 10, stages=8), "at length 40 a single one is left at stage 7"),
        (lambda: ResNet((1, 8, 8), 10, stages=10**9), "images of 8 x 8"),
        (lambda: ResNet((1, 1, 1), 10, stages=2), "at most model.stages=1"),
        (lambda: GRU(SIGNAL, 10, readout="first"), "model.readout"),
        (lambda: GRU(SIGNAL, 10, width=0), "model.width"),
        (lambda: RNN(SIGNAL, 10, activation="gelu"), "tanh, relu or sigmoid"),
        (lambda: Transformer(SIGNAL, 10, heads=5), "model.heads=5"),
        (lambda: Transformer(SIGNAL, 10, normalization="batch"), "layer or none"),
        (lambda: Transformer((1, 2, 3, 4), 10), "(1, 2, 3, 4)"),
        (lambda: ResNet(SIGNAL, 10, shortcut="project"), "did you mean 'projection'"),
        (lambda: WideResNet(SIGNAL, 10, depth=20), "take 10, 16, 22, 28, 34 or 40"),
        (lambda: WideResNet(SIGNAL, 10, widen=0), "model.widen"),
        (lambda: VisionTransformer((3, 12, 8), 10, patch=3), "possible: 1, 2, 4"),
        (lambda: VisionTransformer((3, 8, 8), 10, heads=5), "model.heads=5"),
        (lambda: VisionTransformer((3, 8, 8), 10, normalization="batch"), "layer or none"),
    ],
)
def test_sizes_that_cannot_be(build, key):
    with pytest.raises(ConfigError) as error:
        build()
    assert key in str(error.value)


@pytest.mark.parametrize("size", [(1,), (2,), (9,), (40,), (8, 8), (2, 5), (9, 3)])
def test_as_many_stages_as_leave_a_single_position(size):
    def left(stages):
        model = ResNet((1, *size), 10, width=1, stages=stages, normalization="none")
        return model.blocks(model.stem(torch.zeros(2, 1, *size)))[0, 0].numel()

    with pytest.raises(ConfigError, match=r"use at most model\.stages=") as error:
        left(99)
    most = int(str(error.value).rpartition("=")[2])
    assert left(most) == 1
    assert most == 1 or left(most - 1) > 1


def test_the_depth_the_error_names_does_work():
    assert CNN((1, 8, 8), 10, depth=3)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_group_norm_groups_of_one_channel_need_positions():
    images = torch.randn(2, 1, 40)
    model = CNN1d(SIGNAL, 10, normalization="group", groups=25)
    assert model(images).std() > 0
