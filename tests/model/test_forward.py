"""Outputs against the formulas and against torch's own layers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from truerisk.model import CNN, GRU, LSTM, MLP, RNN, CNN1d, Linear, Polynomial, ResNet, Transformer
from truerisk.model.building_blocks import to_sequence
from truerisk.model.transformer import SelfAttention

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_linear_is_an_affine_map_of_the_flattened_sample():
    model, x = Linear((2, 3, 4), 5), torch.randn(6, 2, 3, 4)
    expected = x.reshape(6, 24) @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("residual", [False, True])
def test_mlp_written_out(residual):
    model, x = MLP((7,), 2, widths=[7, 7, 5], residual=residual), torch.randn(6, 7)
    first, second, third = (block.linear for block in model.hidden)
    h = first(x).relu()
    h = second(h).relu() + (h if residual else 0)
    torch.testing.assert_close(model(x), model.output(third(h).relu()))


def test_mlp_of_depth_zero_is_linear():
    model, x = MLP((7,), 2, depth=0), torch.randn(3, 7)
    torch.testing.assert_close(model(x), model.output(x))


def test_cnn1d_written_out():
    model, x = CNN1d((1, 40), 10), torch.randn(3, 1, 40)
    h = x
    for block, kernel in zip(model.convolutions, (5, 3, 3), strict=True):
        assert block.conv.kernel_size == (kernel,)
        weight, bias = block.conv.weight, block.conv.bias
        h = nn.functional.conv1d(h, weight, bias, stride=2, padding=1).relu()
    assert h.shape == (3, 25, 5)
    torch.testing.assert_close(model(x), model.output(h.flatten(1)))


def test_cnn_reads_height_and_width_as_an_image_of_one_channel():
    model, x = CNN((8, 6), 3), torch.randn(4, 8, 6)
    assert model.stages[0].conv.in_channels == 1
    torch.testing.assert_close(model(x), model.output(model.stages(x.unsqueeze(1)).flatten(1)))


@pytest.mark.parametrize("kind", ["none", "batch", "layer", "group"])
def test_normalized_layers_have_mean_zero_and_variance_one(kind):
    """Over what each kind averages: [n, groups, channels·positions] along the last axis."""
    model, x = CNN1d((1, 40), 10, normalization=kind), 5 + 3 * torch.randn(16, 1, 40)
    block = model.convolutions[0]
    h = nn.Sequential(*list(block.children())[:-1])(x)
    views = {
        "batch": h.transpose(0, 1).reshape(1, 25, -1),
        "layer": h.reshape(16, 1, -1),
        "group": h.reshape(16, 5, -1),
    }
    normal = {
        name: bool(
            v.mean(-1).abs().max() < 1e-4 and (v.var(-1, correction=0) - 1).abs().max() < 0.1
        )
        for name, v in views.items()
    }
    expected = {"none": [], "batch": ["batch"], "layer": ["layer"], "group": ["layer", "group"]}
    assert [name for name, holds in normal.items() if holds] == expected[kind]


@pytest.mark.parametrize("shape", [(2, 11), (1, 7, 10)])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_plain_and_residual_networks_differ_only_in_the_skip(shape, normalization):
    torch.manual_seed(1)
    plain = ResNet(shape, 3, width=4, residual=False, normalization=normalization)
    torch.manual_seed(1)
    skip = ResNet(shape, 3, width=4, residual=True, normalization=normalization)
    torch.testing.assert_close(plain.state_dict(), skip.state_dict(), rtol=0, atol=0)
    x = torch.randn(5, *shape)
    for a, b in zip(plain.eval().blocks, skip.eval().blocks, strict=True):
        h = torch.randn(5, a.first.conv.in_channels, *shape[1:])
        inner = a.second(a.first(h))
        torch.testing.assert_close(a(h), inner.relu())
        torch.testing.assert_close(b(h), (inner + b.apply_shortcut(h)).relu())
    assert not torch.allclose(plain(x), skip(x))


def test_a_widening_block_keeps_every_other_position_and_pads_channels():
    block = ResNet((1, 5, 7), 3, width=4).blocks[1]
    x = torch.randn(2, 4, 5, 7)
    out = block.apply_shortcut(x)
    assert out.shape == (2, 8, 3, 4)
    assert torch.equal(out[:, :4], x[:, :, ::2, ::2]) and not out[:, 4:].any()


def test_sequences_are_positions_rows_and_features():
    signal, image, vector = torch.randn(2, 3, 5), torch.randn(2, 3, 4, 5), torch.randn(2, 6)
    assert torch.equal(to_sequence(signal)[1, 4], signal[1, :, 4])
    assert torch.equal(to_sequence(image)[1, 2], image[1, :, 2, :].flatten())
    assert torch.equal(to_sequence(vector)[1, 3], vector[1, 3:4])


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_readouts_against_torch(cell, bidirectional):
    x = torch.randn(4, 2, 9)
    for readout in ("last", "flatten", "mean"):
        model = cell((2, 9), 3, width=5, depth=2, bidirectional=bidirectional, readout=readout)
        states, final = model.recurrent(x.transpose(1, 2))
        final = final[0] if cell is LSTM else final
        seen = {
            "last": torch.cat(list(final[-1 - bidirectional :]), dim=1),
            "flatten": states.flatten(1),
            "mean": states.mean(1),
        }[readout]
        torch.testing.assert_close(model(x), model.output(seen))


def test_rnn_activation():
    x = torch.randn(3, 1, 6)
    model = RNN((1, 6), 2, activation="relu", bidirectional=False, readout="last", width=4)
    r, h = model.recurrent, torch.zeros(3, 4)
    for t in range(6):
        h = (
            x[:, :, t] @ r.weight_ih_l0.T + r.bias_ih_l0 + h @ r.weight_hh_l0.T + r.bias_hh_l0
        ).relu()
    torch.testing.assert_close(model(x), model.output(h))


@pytest.mark.parametrize("options", [{"residual": True}, {"activation": "sigmoid"}])
def test_rnn_with_what_torch_does_not_have(options):
    x = torch.randn(3, 1, 6)
    torch.manual_seed(0)
    plain = RNN((1, 6), 2, width=4)
    torch.manual_seed(0)
    model = RNN((1, 6), 2, width=4, **options)
    weights = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    assert model(x).shape == (3, 2) and not torch.allclose(model(x), plain(x))


def test_attention_against_torch():
    ours, theirs = SelfAttention(12, heads=3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        parts = [ours.query.weight, ours.key.weight, ours.value.weight]
        theirs.in_proj_weight.copy_(torch.cat(parts))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.randn(12), ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    tokens = torch.randn(4, 6, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0])


def test_transformer_without_positions_ignores_order():
    model, x = Transformer((1, 10), 3), torch.randn(4, 1, 10)
    shuffled = x[:, :, torch.randperm(10)]
    assert not torch.allclose(model(x), model(shuffled), atol=1e-5)
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(x), model(shuffled))


def test_a_polynomial_of_degree_0_is_an_intercept_made_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Polynomial((1,), 1, degree=0)
    outputs = model(torch.tensor([[0.5], [-1.0]]))
    assert torch.equal(outputs, model.output.bias.expand(2, 1))
