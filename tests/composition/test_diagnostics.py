"""Every model under every diagnostic: the weights of a run without it, or a reason against it."""

from __future__ import annotations

import pytest
import torch

from truerisk.config.parts import conf_dir, list_options
from truerisk.core.errors import ConfigError

NAMES = list_options("diagnostics", (conf_dir(),))
LAYERS = ("activations", "feature_change", "gradient_flow", "gradient_noise", "lr_range")
LAYERS += ("numerics", "recurrence", "attention")
ATTENTIVE = ("gpt", "transformer", "vit")
RECURRENT = ("rnn", "lstm", "gru")
WITHOUT_ACTIVATION = ("linear", "polynomial", "lstm", "gru")
SHORT_SEQUENCES = dict.fromkeys([*RECURRENT, "transformer"], "arrays (signals)")
DATA = {"cnn": "digits", "vit": "digits", "gpt": "text"} | SHORT_SEQUENCES
"""Where it is not the default."""


def refused(model, function):
    """What cannot look at a model, and the reason that is given."""
    if function:
        flat = model in {"cubic", "lessard"}  # of one variable
        alone = {"landscape": "no plane through a single weight"} if flat else {}
        return dict.fromkeys(LAYERS, "a test function has neither") | alone
    found = {} if model in RECURRENT else {"recurrence": "no recurrent layer"}
    if model not in ATTENTIVE:
        found["attention"] = "no layer with attention"
    if model in WITHOUT_ACTIVATION:
        found["activations"] = "no layer that is an activation function"
    return found


def state(result):
    """Everything a run goes on from: weights, statistics, momenta, random generators."""
    saved = torch.load(result.run.last, weights_only=True)
    momenta = saved["optimizer_states"][0]["state"]
    moved = {f"{i}/{k}": v for i, s in momenta.items() for k, v in s.items()}
    tensors = {**saved["state_dict"], **moved, "rng": saved["truerisk"]["rng"][0]["torch"]}
    return {name: torch.as_tensor(t) for name, t in tensors.items() if t is not None}


@pytest.fixture
def recipe(model, functions, chosen, sizes):
    """The overrides of a run of a model, in a small size."""
    if model in functions:
        return ["data=none", f"model={model}", "trainer.max_epochs=3"]
    loss = ["loss=mse"] if model in SHORT_SEQUENCES else []
    return [*chosen("data", DATA.get(model, "mnist1d")), *chosen("model", model), *sizes, *loss]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", list_options("model", (conf_dir(),)))
def test_every_model_takes_the_steps_it_takes_alone(
    model, precision, recipe, functions, chosen, train
):
    recipe = [*recipe, f"trainer.precision={precision}"]
    against = refused(model, model in functions)
    taken = [name for name in NAMES if name not in against]
    small = [text for name in taken for text in chosen("diagnostics", name)[1:]]
    plain, watched = train(*recipe), train(*recipe, f"diagnostics=[{','.join(taken)}]", *small)
    assert watched.status == plain.status == "finished"
    assert set(taken) <= set(watched.history.name.str.partition("/")[0])
    mine, theirs = state(plain), state(watched)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("model", list_options("model", (conf_dir(),)))
def test_what_cannot_look_at_a_model_says_why(model, recipe, functions, chosen, train):
    for name, why in refused(model, model in functions).items():
        with pytest.raises(ConfigError, match=f"diagnostics.{name}: .*{why}"):
            train(*recipe, *chosen("diagnostics", name))
