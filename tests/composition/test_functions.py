"""Functions of the weights, with data=none: what goes with them, and what is refused."""

from __future__ import annotations

import math

import pytest

from truerisk.config.compose import LISTS
from truerisk.config.parts import conf_dir, list_options
from truerisk.core.errors import ConfigError

SHORT = ["trainer.max_epochs=3"]
METHODS = {
    "gd_wolfe": "optimizer.lr=1",
    "hill_climbing": "optimizer.lr=0.01",
    "lbfgs": "optimizer.max_iter=4",
    "newton": "optimizer.saddle_free=true",
}
"""One of each kind: along lines, without a gradient, on a model of J, with its curvature."""

ENDLESS = ("cubic", "gd_wolfe")
"""A search along lines, where values have no lower bound."""
UNBOUNDED = ("cubic", "saddle")
"""Functions without one: a search by torch before 2.13 may follow them as far as one can count."""

NEEDED = {
    ("optimizer", "custom"): ["optimizer._target_=torch.optim.ASGD", "+optimizer.lr=1e-4"],
    ("logger", "wandb"): ["logger.wandb.mode=offline"],
    ("logger", "mlflow"): ["logger.mlflow.tracking_uri=sqlite:///{folder}/mlflow.db"],
}
VECTORS = ("elastic_net", "group_lasso", "l1", "l2", "max_norm", "orthogonality")
SAMPLES = ("augment", "cutmix", "dropout", "entropy", "input_gradient", "input_noise", "mixup")
LAYERS = ("activations", "feature_change", "gradient_flow", "gradient_noise", "lr_range")
LAYERS += ("numerics", "recurrence", "attention")
REFUSED = {
    ("optimizer", "muon"): "found no matrix",
    (
        "param_groups",
        "muon_hidden",
    ): "sets 'muon', which this optimizer does not have: .*; set param_groups=all",
    **{("diagnostics", name): "looks at layers and samples" for name in LAYERS},
    **{("regularizer", name): "leaves out vectors" for name in VECTORS},
    **{("regularizer", name): "acts on samples or layers" for name in (*SAMPLES, "spectral_norm")},
}
"""Why an option cannot work on a vector of weights."""

BY_KIND = {"initializer": ("default", "has none"), "loss": ("value", "is function")}
"""Groups of which only one option works, and why the others do not."""


def solved(result):
    """A finished run has its value at every epoch, and its lowest is no higher than its first."""
    assert result.status == "finished", result.reason
    history = result.history
    values = list(history[history.name == "risk/val"].value)
    assert len(values) == 4 and all(map(math.isfinite, values))
    assert result.summary["risk/val"].value == min(values)
    return values


@pytest.mark.parametrize("method", METHODS)
def test_every_function_with_every_kind_of_method(function, method, train):
    given = [f"model={function}", f"optimizer={method}", METHODS[method], *SHORT]
    result = train("data=none", *given)
    found = function in UNBOUNDED and method == "lbfgs" and result.status == "diverged"
    if (function, method) == ENDLESS or found:
        assert result.status == "diverged" and "the path has come further" in result.reason
    else:
        values = solved(result)
        assert min(values) < values[0]


GROUPS = ("optimizer", "scheduler", "regularizer", "initializer", "loss", "param_groups", "logger")
GROUPS += ("diagnostics",)
PAIRS = [(group, option) for group in GROUPS for option in list_options(group, (conf_dir(),))]


@pytest.mark.parametrize(("group_of", "name"), PAIRS)
def test_every_option_on_a_function(group_of, name, train, tmp_path):
    if group_of == "logger":
        pytest.importorskip({"csv": "csv"}.get(name, name))
    value = f"[{name}]" if group_of in LISTS else name
    needed = [text.format(folder=tmp_path) for text in NEEDED.get((group_of, name), [])]
    line = ["data=none", "model=booth", f"{group_of}={value}", *needed, *SHORT]
    works, why = BY_KIND.get(group_of, (name, ""))
    why = REFUSED.get((group_of, name), why if name != works else "")
    if why:
        with pytest.raises(ConfigError, match=why):
            train(*line)
    else:
        solved(train(*line))


@pytest.mark.parametrize("name", VECTORS)
def test_a_penalty_that_takes_vectors_too(name, train):
    given = [f"regularizer=[{name}]", f"regularizer.{name}.rules=[]", *SHORT]
    solved(train("data=none", "model=booth", *given))


OUTSIDE = {
    "step.accumulate=2": "",
    "step.clip.norm=1": "",
    "step.clip.value=1": "",
    "data.batch_size=8": "",
    "trainer.precision=32-true": "",
    "trainer.precision=bf16-mixed": "",
    "experiment=default": "",
    "experiment=mnist1d_table": "data.val: truerisk.data.NoData takes no 'val'",
    "data=iris": "reads no samples: add data=none",
}


@pytest.mark.parametrize("choice", OUTSIDE)
def test_choices_outside_the_groups(choice, train):
    given = ["model=booth", *SHORT, choice]
    given += [] if choice.startswith("data=") else ["data=none"]
    if OUTSIDE[choice]:
        with pytest.raises(ConfigError, match=OUTSIDE[choice]):
            train(*given)
    else:
        solved(train(*given))


def test_no_data_needs_a_function(train):
    with pytest.raises(ConfigError, match="data=none has none: choose a test function"):
        train("data=none", "model=mlp")
