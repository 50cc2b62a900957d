"""Every option's weights against its formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats
from torch import nn

from truerisk.initializer import identity_, sparse_, truncated_normal_
from truerisk.initializer.initializer import weight_matrices

torch.set_num_threads(1)
CONF = Path(__file__).parents[2] / "conf" / "initializer"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "pretrained")
LAYERS = {
    "linear": lambda: nn.Linear(300, 200),
    "conv1d": lambda: nn.Conv1d(60, 80, 5),
    "conv2d": lambda: nn.Conv2d(20, 40, (3, 5)),
    "grouped": lambda: nn.Conv1d(120, 240, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose1d(60, 80, 5),
    "lstm": lambda: nn.LSTM(150, 100),
    "gru": lambda: nn.GRU(150, 100),
    "attention": lambda: nn.MultiheadAttention(120, 4),
}
# fan in, fan out of each matrix, by hand
FANS = {
    "linear": [(300, 200)],
    "conv1d": [(300, 400)],
    "conv2d": [(300, 600)],
    "grouped": [(180, 360)] * 2,
    "transposed": [(300, 400)],
    "lstm": [(150, 100)] * 4 + [(100, 100)] * 4,
    "gru": [(150, 100)] * 3 + [(100, 100)] * 3,
    "attention": [(120, 120)] * 4,
}
VARIANCES = {
    "normal": lambda i, o: 0.05**2,
    "truncated_normal": lambda i, o: 0.05**2 * stats.truncnorm(-2, 2).var(),
    "xavier_uniform": lambda i, o: 2 / (i + o),
    "xavier_normal": lambda i, o: 2 / (i + o),
    "kaiming_uniform": lambda i, o: 2 / i,
    "kaiming_normal": lambda i, o: 2 / i,
    "lecun_normal": lambda i, o: 1 / i,
    "orthogonal": lambda i, o: 1 / max(i, o),
    "sparse": lambda i, o: 15 / i,
}


def option(name, **numbers):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    for key, value in numbers.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=False)
    return instantiate(config)


def initialized(name, layer, seed=0, **numbers):
    torch.manual_seed(seed)
    module = LAYERS[layer]()
    option(name, **numbers)(module)
    return [m.weight.detach() for m in weight_matrices(module)]


def variance_error(weight):
    """Four standard errors of a normal sample's relative variance; the other laws' are smaller."""
    return 4 * math.sqrt(2 / weight.numel())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", [n for n in VARIANCES if n not in ("orthogonal", "sparse")])
def test_variances_follow_the_formula_for_every_part(name, layer):
    weights = initialized(name, layer)
    assert len(weights) == len(FANS[layer])
    for weight, fans in zip(weights, FANS[layer], strict=True):
        ratio = float(weight.var()) / VARIANCES[name](*fans)
        assert abs(ratio - 1) < variance_error(weight)
        assert abs(float(weight.mean())) < 4 * float(weight.std()) / math.sqrt(weight.numel())


@pytest.mark.parametrize("layer", ["linear", "conv2d", "gru"])
def test_uniform_bounds_are_the_formulas(layer):
    for weight, (i, o) in zip(initialized("xavier_uniform", layer), FANS[layer], strict=True):
        bound = math.sqrt(6 / (i + o))
        assert 0.99 * bound < float(weight.abs().max()) <= bound
    for weight, (i, _) in zip(initialized("kaiming_uniform", layer), FANS[layer], strict=True):
        assert 0.99 * math.sqrt(6 / i) < float(weight.abs().max()) <= math.sqrt(6 / i)


@pytest.mark.parametrize("name", ["normal", "xavier_normal", "kaiming_normal", "lecun_normal"])
def test_normal_schemes_are_normal(name):
    weight = initialized(name, "linear")[0]
    std = math.sqrt(VARIANCES[name](300, 200))
    assert stats.kstest(weight.flatten().numpy()[:5000], stats.norm(0, std).cdf).pvalue > 0.01


def test_truncated_normal_distribution():
    torch.manual_seed(0)
    weight = truncated_normal_(torch.empty(5000, 1), std=0.3, cut=1.5)
    law = stats.truncnorm(-1.5, 1.5, scale=0.3)
    assert stats.kstest(weight.flatten().numpy(), law.cdf).pvalue > 0.01


def test_fan_out_and_nonlinearity_of_kaiming():
    weight = initialized(
        "kaiming_normal",
        "linear",
        weight__mode="fan_out",
        weight__nonlinearity="leaky_relu",
        weight__a=0.5,
    )[0]
    assert abs(float(weight.var()) * 200 * 1.25 / 2 - 1) < variance_error(weight)


@pytest.mark.parametrize("layer", LAYERS)
def test_orthogonal_rows_or_columns(layer):
    for weight in initialized("orthogonal", layer):
        w = weight.flatten(1).double()
        product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        torch.testing.assert_close(product, torch.eye(len(product)).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("connections", [1, 7, 15, 149, 150, 1000])
def test_sparse_units_have_a_fixed_number_of_inputs(connections):
    torch.manual_seed(0)
    weight = sparse_(torch.empty(40, 30, 5), connections, std=2.0).flatten(1)
    assert weight.count_nonzero(dim=1).unique().tolist() == [min(connections, 150)]


def test_every_number_of_connections_is_exact():
    for inputs in range(1, 60):
        for connections in range(1, inputs + 1):
            weight = sparse_(torch.empty(1, inputs), connections)
            assert weight.count_nonzero() == connections


def test_sparse_values_and_places():
    weight = initialized("sparse", "linear", weight__std=2.0)[0]
    values = weight[weight != 0]
    assert len(values) == 200 * 15
    assert stats.kstest(values.numpy(), stats.norm(0, 2).cdf).pvalue > 0.01
    assert stats.chisquare(weight.count_nonzero(dim=0)).pvalue > 0.01


def test_sparse_in_each_gate():
    for weight in initialized("sparse", "gru"):
        assert weight.count_nonzero(dim=1).unique().tolist() == [15]


@pytest.mark.parametrize("layer,gates", [("gru", 3), ("lstm", 4)])
def test_identity_in_each_gate(layer, gates):
    weights = initialized("identity_rnn", layer, recurrent__scale=0.9)
    for weight in weights[gates:]:
        assert torch.equal(weight, 0.9 * torch.eye(100))
    for weight in weights[:gates]:
        assert abs(float(weight.var()) / 0.001**2 - 1) < variance_error(weight)


def test_identity_rnn_carries_its_state_on():
    torch.manual_seed(0)
    layer = nn.RNN(3, 8, nonlinearity="relu", batch_first=True)
    option("identity_rnn", recurrent__scale=0.5)(layer)
    start = torch.rand(1, 2, 8)
    states, _ = layer(torch.zeros(2, 4, 3), start)
    torch.testing.assert_close(states[:, 3], start[0] * 0.5**4)


def test_identity_of_a_rectangle():
    assert torch.equal(identity_(torch.empty(2, 3)), torch.eye(2, 3))


def test_zeros():
    assert not any(w.any() for w in initialized("zeros", "gru"))


UNSCALED = ("zeros", "identity_rnn", "orthogonal_rnn", "lsuv")


@pytest.mark.parametrize("name", [n for n in OPTIONS if n not in UNSCALED])
def test_gain_multiplies_the_weights(name):
    for one, three in zip(
        initialized(name, "gru"), initialized(name, "gru", gain=3.0), strict=True
    ):
        assert torch.equal(3 * one, three)


@pytest.mark.parametrize("name", [n for n in OPTIONS if n not in ("zeros", "default", "lsuv")])
def test_seeds_decide(name):
    first, again, other = (initialized(name, "gru", seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_default_leaves_torchs_weights():
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    before = [p.clone() for p in layer.parameters()]
    option("default")(layer)
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_first_line_of_an_option_says_what_it_is(name):
    first, *rest = (CONF / f"{name}.yaml").read_text().splitlines()
    assert first.startswith("# ") and len(first) <= 92
    plain = ("_target_", "_partial_", "weight:", "recurrent:")
    assert all("#" in line for line in rest if not line.strip().startswith(plain))
