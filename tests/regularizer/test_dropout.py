"""Where dropout goes, and what it does there."""

import copy

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.regularizer import Dropout


def names(model):
    return [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)]


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 50), nn.GELU(), nn.Linear(50, 2)
    )


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 50), nn.Linear(50, 2)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_after_each_activation():
    model = Dropout(0.3).edit_model(perceptron())
    assert names(model) == ["1.dropout", "3.dropout"]
    hidden = model[1](torch.ones(1000, 50))
    assert float((hidden == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(hidden.max(), torch.tensor(1 / 0.7))


def test_parameter_names_and_types_stay():
    plain = perceptron()
    edited = Dropout(0.3).edit_model(copy.deepcopy(plain))
    assert list(plain.state_dict()) == list(edited.state_dict())
    assert [type(m) for m in plain] == [type(m) for m in edited]


@pytest.mark.parametrize("build", [perceptron, Functional])
def test_evaluation_is_the_identity(build):
    plain = build()
    edited = Dropout(0.5).edit_model(copy.deepcopy(plain))
    x = torch.randn(6, 4)
    assert not torch.equal(edited(x), edited(x))
    assert torch.equal(edited.eval()(x), plain(x))


def test_expected_output_of_a_linear_head_is_kept():
    model = Functional()
    x = torch.randn(1, 4)
    expected = model(x)
    edited = Dropout(0.5).edit_model(copy.deepcopy(model))
    many = edited(x.expand(40_000, 4))
    error = many.std(0) / 40_000**0.5
    assert ((many.mean(0) - expected[0]).abs() < 5 * error).all()


def test_before_the_last_linear_layer_without_activation_modules():
    model = Dropout(0.5).edit_model(Functional())
    assert names(model) == ["head.dropout"]


def test_a_models_own_dropout_gets_p_and_nothing_is_added():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Dropout(0.0), nn.Dropout1d(0.1))
    Dropout(0.4).edit_model(model)
    assert names(model) == ["2"]
    assert model[2].p == model[3].p == 0.4


def test_one_activation_in_two_places_gets_one_dropout():
    act = nn.Tanh()
    model = Dropout(0.5).edit_model(nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act))
    out = model[1](torch.full((1000, 1), 10.0))
    assert float((out == 0).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_no_place():
    with pytest.raises(ConfigError, match=r"regularizer=dropout.*nn\.Linear"):
        Dropout(0.5).edit_model(nn.Sequential(nn.Conv1d(1, 1, 1)))


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, None])
def test_p_is_a_probability_below_one(p):
    with pytest.raises(ConfigError, match=r"regularizer\.dropout\.p"):
        Dropout(p)


def test_copies_and_functional_calls_drop_too():
    model = copy.deepcopy(Dropout(0.5).edit_model(perceptron()))
    params = dict(model.named_parameters())
    stacked = {n: torch.stack([p, p]) for n, p in params.items()}
    x = torch.randn(6, 4)
    out = torch.vmap(lambda p: torch.func.functional_call(model, p, (x,)), randomness="different")(
        stacked
    )
    assert not torch.equal(out[0], out[1])
