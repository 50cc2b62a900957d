"""Every initializer on every model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
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
RECURRENT = {"rnn", "lstm", "gru"}


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_it_works_or_says_why_not(name, model_name):
    shape = (1, 8, 8) if model_name == "cnn" else (1, 40)
    torch.manual_seed(0)
    model = instantiate(compose([f"model={model_name}"]).model, shape, 10)
    initializer = instantiate(OmegaConf.load(CONF / "initializer" / f"{name}.yaml"))
    before = [m.weight.clone() for m in weight_matrices(model)]
    x = torch.randn(50, *shape)
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
        shape = (1, 8, 8) if model_name == "cnn" else (1, 40)
        model = instantiate(compose([f"model={model_name}"]).model, shape, 10)
        reached = sum(m.weight.numel() for m in weight_matrices(model))
        reached += sum(b.numel() for b in bias_vectors(model))
        names = ("normalization", "positions", "last")
        rest = sum(p.numel() for n, p in model.named_parameters() if any(w in n for w in names))
        assert reached + rest == sum(p.numel() for p in model.parameters())
