"""The max-norm constraint."""

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.regularizer import MaxNorm


@pytest.fixture
def params():
    torch.manual_seed(0)
    shapes = {"fc.weight": (20, 10), "conv.weight": (20, 3, 2, 2), "fc.bias": (20,)}
    params = {n: torch.randn(s) for n, s in shapes.items()}
    params["fc.weight"] *= torch.linspace(0, 2, 20)[:, None]
    return params


def lengths(w):
    return w.flatten(1).norm(dim=1)


def test_long_rows_are_scaled_back_and_short_ones_untouched(params):
    before = {n: p.clone() for n, p in params.items()}
    MaxNorm(3.0).project(params)
    for name in ("fc.weight", "conv.weight"):
        w, old = params[name], before[name]
        long = lengths(old) > 3
        assert 0 < int(long.sum()) < 20
        assert float(lengths(w).max()) <= 3 + 1e-5
        assert torch.equal(w[~long], old[~long])
        nearest = old[long] * (3 / lengths(old)[long]).reshape(-1, *[1] * (old.ndim - 1))
        torch.testing.assert_close(w[long], nearest)
    assert torch.equal(params["fc.bias"], before["fc.bias"])


def test_projecting_twice_changes_nothing(params):
    constraint = MaxNorm(3.0)
    constraint.project(params)
    once = {n: p.clone() for n, p in params.items()}
    constraint.project(params)
    for name, p in params.items():
        torch.testing.assert_close(p, once[name], rtol=1e-6, atol=0)


def test_rules(params):
    before = params["conv.weight"].clone()
    rules = [{"name": "conv", "bound": None}, {"name": "fc.weight", "bound": 1.0}]
    MaxNorm(3.0, rules).project(params)
    assert torch.equal(params["conv.weight"], before)
    assert 0.99 < float(lengths(params["fc.weight"]).max()) <= 1 + 1e-6


def test_parameters_that_train(params):
    w = torch.nn.Parameter(params["fc.weight"])
    with torch.no_grad():
        MaxNorm(1.0).project({"w": w})
    assert w.is_leaf and float(lengths(w.detach()).max()) <= 1 + 1e-6


@pytest.mark.parametrize("bound", [0, -1.0])
def test_bound_must_be_positive(bound):
    with pytest.raises(ConfigError, match=r"regularizer\.max_norm\.bound"):
        MaxNorm(bound)
    with pytest.raises(ConfigError, match=r"regularizer\.max_norm\.rules"):
        MaxNorm(1.0, [{"bound": bound if bound else "no"}])
    with pytest.raises(ConfigError, match="did you mean 'bound'"):
        MaxNorm(1.0, [{"buond": 1.0}])
