"""Every initializer on every model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize

from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.initializer import LSUV, Initializer
from truerisk.initializer.initializer import bias_vectors, weight_matrices
from truerisk.model import Function

torch.set_num_threads(1)
CONF = Path(__file__).parents[2] / "conf"
INITIALIZERS = sorted(path.stem for path in (CONF / "initializer").glob("*.yaml"))
INITIALIZERS.remove("pretrained")  # it asks for a file


def has_layers(path):
    target = OmegaConf.load(path).get("_target_", "torch.nn.Module")  # or an option's it builds on
    return not issubclass(get_object(target), Function)


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if has_layers(path))
SMALL = {
    "resnet18": ["model.width=4"],
    "wide_resnet": ["model.depth=10", "model.widen=1"],
    "vit": ["model.width=24", "model.depth=2"],
}
RECURRENT = {"rnn", "lstm", "gru"}


def model_and_inputs(model_name):
    """A small model for ten classes, and inputs of 50 samples."""
    shape = {"cnn": (1, 8, 8), "vit": (1, 8, 8), "gpt": (12,)}.get(model_name, (1, 40))
    torch.manual_seed(0)
    overrides = [f"model={model_name}", *SMALL.get(model_name, [])]
    model = instantiate(compose(overrides).model, shape, 10)
    x = torch.randn(50, *shape)
    if model_name == "gpt":
        x = torch.randint(10, (50, *shape))
    return model, x


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_it_works_or_says_why_not(name, model_name):
    model, x = model_and_inputs(model_name)
    initializer = instantiate(OmegaConf.load(CONF / "initializer" / f"{name}.yaml"))
    before = [m.weight.clone() for m in weight_matrices(model)]
    if name in ("identity_rnn", "orthogonal_rnn") and model_name not in RECURRENT:
        with pytest.raises(ConfigError, match="recurrent"):
            initializer(model, x)
        return
    initializer(model, x if initializer.needs_data else None)
    same = [torch.equal(a, m.weight) for a, m in zip(before, weight_matrices(model), strict=True)]
    assert all(same) if name == "default" else not any(same)
    assert name == "default" or not any(b.any() for b in bias_vectors(model))
    assert model(x).isfinite().all()


def test_every_parameter_of_the_models_is_a_matrix_a_bias_a_norm_or_positions():
    for model_name in MODELS:
        model, _ = model_and_inputs(model_name)
        reached = sum(m.weight.numel() for m in weight_matrices(model))
        reached += sum(b.numel() for b in bias_vectors(model))
        names = ("norm", "positions", "last", "token")
        rest = sum(p.numel() for n, p in model.named_parameters() if any(w in n for w in names))
        assert reached + rest == sum(p.numel() for p in model.parameters())


NORMS = {
    "weight norm": parametrizations.weight_norm,
    "the older weight norm": utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("norm", NORMS)
def test_a_weight_normalised_layer_computes_with_what_is_set(norm):
    model = nn.Sequential(NORMS[norm](nn.Linear(6, 4)), nn.Tanh(), NORMS[norm](nn.Conv1d(1, 2, 3)))
    Initializer(nn.init.ones_, bias=0.25, gain=0.5)(model)
    x = torch.arange(6.0)[None]
    torch.testing.assert_close(model[0](x), torch.full((1, 4), 0.5 * 15 + 0.25))
    torch.testing.assert_close(model[2](x[None]).flatten()[:2], torch.tensor([1.75, 3.25]))
    for layer in (model[0], model[2]):
        torch.testing.assert_close(layer.weight, torch.full_like(layer.weight, 0.5))


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("norm", NORMS)
def test_lsuv_scales_weight_normalised_layers(norm):
    torch.manual_seed(0)
    model = nn.Sequential(NORMS[norm](nn.Linear(6, 40)), nn.Tanh(), NORMS[norm](nn.Linear(40, 5)))
    x = 3 * torch.randn(200, 6)
    LSUV()(model, x)
    assert float(model[0](x).detach().var(correction=0)) == pytest.approx(1, abs=0.011)
    assert float(model(x).detach().var(correction=0)) == pytest.approx(1, abs=0.011)


def test_a_recurrent_layers_normalised_weight_is_set_and_others_stay():
    layer = parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0")
    before = {name: p.clone() for name, p in layer.named_parameters()}
    Initializer()(layer)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
    Initializer(recurrent=nn.init.eye_)(layer)
    torch.testing.assert_close(layer.weight_hh_l0, torch.eye(4).repeat(3, 1))
    assert torch.equal(layer.weight_ih_l0, before["weight_ih_l0"])


class Squared(nn.Module):
    def forward(self, weight):
        return weight.square()


def test_a_parametrization_that_cannot_be_turned_round_is_refused():
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Squared())
    with pytest.raises(ConfigError, match=r"initializer: Squared of .*'?s weight.*right_inverse"):
        Initializer(nn.init.ones_)(nn.Sequential(layer))
    Initializer()(nn.Sequential(layer))
