"""The change of layers' outputs, against weights of the first and the last step."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

import truerisk

TINY = [
    "data=iris",
    "data.batch_size=30",
    "model.width=8",
    "model.depth=1",
    "trainer.precision=64-true",
    "trainer.max_epochs=2",
    "risk.train_samples=90",  # all of them
    "diagnostics=[feature_change]",
    "diagnostics.feature_change.every.steps=1",
]


def measure_rms(x):
    return x.square().mean().sqrt().item()


def read_last(result, name):
    return result.history[result.history.name == f"feature_change/{name}"].value.iloc[-1]


def test_it_is_the_difference_of_two_forward_passes(run, assembled, last_weights):
    result = run(*TINY, "optimizer=sgd", "optimizer.lr=0.1")
    recipe = assembled(*TINY)
    x = recipe.data.train.x.double()
    first, last = recipe.model.state_dict(), last_weights(result)
    outputs = []
    for weights in (first, last):
        hidden = x @ weights["hidden.0.linear.weight"].T + weights["hidden.0.linear.bias"]
        scores = hidden.relu() @ weights["output.weight"].T + weights["output.bias"]
        outputs.append({"hidden.0.linear": hidden.detach(), "output": scores.detach()})
    for layer in outputs[0]:
        change = measure_rms(outputs[1][layer] - outputs[0][layer])
        assert read_last(result, f"change/{layer}") == pytest.approx(change, rel=1e-10)
        share = change / measure_rms(outputs[0][layer])
        assert read_last(result, f"share/{layer}") == pytest.approx(share, rel=1e-10)


def test_recurrent_layers_and_tied_weights_are_looked_at(run):
    words = ["data=mnist1d", "data.source.num_samples=60", "model=gru", "model.width=3"]
    result = run(*words, "trainer.max_epochs=1", "diagnostics=[feature_change]")
    names = {n for n in result.history.name if n.startswith("feature_change/change/")}
    assert len(names) >= 2 and all(read_last(result, n.partition("/")[2]) > 0 for n in names)


def test_a_run_that_goes_on_remembers_where_it_began(tiny, killed_after, tmp_path):
    tiny(tmp_path / "whole", TINY)
    wanted = (tmp_path / "whole" / "metrics.csv").read_text()
    killed_after(4, partial(tiny, tmp_path / "cut", TINY))
    truerisk.train(OmegaConf.create({"resume": str(tmp_path / "cut")}))
    assert (tmp_path / "cut" / "metrics.csv").read_text() == wanted


def test_a_model_without_layers_is_refused(tmp_path):
    words = ["data=iris", "diagnostics=[feature_change]"]
    with pytest.raises(truerisk.ConfigError, match="no layer with weights inside"):
        truerisk.train(words, model=torch.nn.Linear(4, 3), folder=tmp_path / "run")


def test_the_weights_themselves_are_left_alone(run, last_weights):
    plain = last_weights(run(*TINY[:-2]))
    looked = last_weights(run(*TINY))
    assert all(torch.equal(plain[name], looked[name]) for name in plain)
