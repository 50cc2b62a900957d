"""Spectral normalization."""

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.regularizer import SpectralNorm


def test_effective_weights_have_unit_norm_after_some_passes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(7)
    before = torch.linalg.matrix_norm(model[0].weight.flatten(1), 2)
    model = SpectralNorm().edit_model(model)
    assert float(before.detach()) > 2
    for _ in range(60):
        model(torch.randn(4, 2, 10))
    model.eval()
    for layer in (model[0], model[3]):
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert float(norm.detach()) == pytest.approx(1, abs=1e-3)


def test_dense_networks_become_contractions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 3))
    model = SpectralNorm(iterations=30).edit_model(model)
    model(torch.zeros(1, 5))
    model.eval()
    a, b = torch.randn(500, 5) * 10, torch.randn(500, 5) * 10
    stretch = (model(a) - model(b)).norm(dim=1) / (a - b).norm(dim=1)
    assert float(stretch.max().detach()) <= 1 + 1e-4


def test_iterations_reach_torch():
    model = SpectralNorm(3).edit_model(nn.Sequential(nn.Linear(2, 2)))
    assert model[0].parametrizations.weight[0].n_power_iterations == 3


def test_no_layer():
    with pytest.raises(ConfigError, match="regularizer=spectral_norm"):
        SpectralNorm().edit_model(nn.GRU(2, 2))


def test_iterations_are_whole():
    with pytest.raises(ConfigError, match=r"regularizer\.spectral_norm\.iterations"):
        SpectralNorm(0)


def test_a_weight_of_zero_has_no_direction():
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ConfigError, match="take another initializer"):
        SpectralNorm().edit_model(nn.Sequential(layer))
