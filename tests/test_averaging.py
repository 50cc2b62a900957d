"""Averaged weights are what is measured and kept; training itself does not notice."""

from __future__ import annotations

import math
import re
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data.split import TensorSplit
from truerisk.engine.host import Host
from truerisk.engine.measure import RiskEstimator
from truerisk.engine.precision import DevicePrecision
from truerisk.engine.step import Step
from truerisk.objective import Objective

RECIPE = ["data=wine", "data.batch_size=20", "model.width=8", "model.normalization=batch"]
RECIPE += ["optimizer=momentum", "trainer.precision=64-true", "trainer.max_epochs=6"]
STEPS = 6  # an epoch has: 106 samples in batches of 20


@pytest.fixture(scope="module")
def traced(run):
    """A run, and the model's state after each of its optimizer steps."""

    def trace(*overrides):
        states, take = [], Step.__call__

        def noted(step, micro_batches):
            take(step, micro_batches)
            states.append({k: v.detach().clone() for k, v in step.model.state_dict().items()})

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(Step, "__call__", noted)
            return run(*RECIPE, *overrides), states

    return trace


@pytest.fixture(scope="module")
def plain(traced):
    return traced("regularizer=[]")


@pytest.fixture(scope="module")
def ema(traced):
    return traced("regularizer=ema", "regularizer.ema.decay=0.9")


@pytest.fixture(scope="module")
def swa(traced):
    return traced("regularizer=swa", "regularizer.swa.start=0.5")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("averaged", ["ema", "swa"])
def test_training_goes_on_as_without(plain, averaged, request):
    _, states = request.getfixturevalue(averaged)
    assert len(states) == len(plain[1]) == 6 * STEPS
    assert all(map(same, states, plain[1]))


def exponential(states, decay=0.9):
    """w̄₁ = w₁, w̄ₜ = d w̄ₜ₋₁ + (1 − d) wₜ with d = min(decay, (1 + t)/(10 + t)); after each step."""
    average = {name: w.clone() for name, w in states[0].items()}
    for t, state in enumerate(states, 1):
        d = min(decay, (1 + t) / (10 + t)) if t > 1 else 0.0
        for name, w in state.items():
            average[name] = d * average[name] + (1 - d) * w if w.is_floating_point() else w
        yield {name: w.clone() for name, w in average.items()}


def risk_of(assembled, state):
    """Validation risk of a model with this state."""
    recipe = assembled(*RECIPE)
    recipe.model.load_state_dict(state)
    val = recipe.data.val
    with torch.no_grad():
        return cross_entropy(recipe.model.eval()(val.x), val.y).item()


def error_of(assembled, state, *overrides):
    """Share of the validation samples that a model with this state gets wrong."""
    recipe = assembled(*RECIPE, *overrides)
    recipe.model.load_state_dict(state)
    val = recipe.data.val
    with torch.no_grad():
        wrong = recipe.model.eval()(val.x).argmax(1) != val.y
    return wrong.double().mean().item()


def refreshed(assembled, state, *overrides):
    """The same weights with the batch-norm statistics that torch's `update_bn` finds for them."""
    recipe = assembled(*RECIPE, *overrides)
    recipe.model.load_state_dict(state)
    update_bn([recipe.data.train.x], recipe.model)
    return recipe.model.state_dict()


def best_state(result):
    return torch.load(result.run.best, weights_only=True)["state"]


def test_ema_is_measured_and_kept(ema, assembled, series):
    result, states = ema
    averages = [refreshed(assembled, w) for w in list(exponential(states))[STEPS - 1 :: STEPS]]
    logged = series(result, "risk/val")
    for epoch, average in enumerate(averages, 1):
        assert logged[epoch] == pytest.approx(risk_of(assembled, average), rel=1e-11)
    own = risk_of(assembled, states[STEPS - 1])
    assert abs(logged[1] - own) > 1e-3
    best = result.summary["risk/val"].epoch
    assert best > 1
    for name, w in best_state(result).items():
        if "num_batches" not in name:  # counted by training
            torch.testing.assert_close(w, averages[best - 1][name], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("steps", [10, 50])
def test_the_error_of_a_young_average_is_that_of_fresh_statistics(traced, assembled, steps):
    """Averaged along with the weights, statistics would be those of weights long gone."""
    overrides = ["data=digits", "model.width=30", f"trainer.max_steps={steps}"]
    overrides.append("trainer.max_epochs=-1")
    result, states = traced(*overrides, "regularizer=ema")
    *_, average = exponential(states, decay=0.99)
    fresh, val = refreshed(assembled, average, *overrides), result.summary["error/val"]
    assert val.value == error_of(assembled, fresh, *overrides)
    variances = [name for name in fresh if name.endswith("running_var")]
    off = [float((average[n] / fresh[n] - 1).abs().mean()) for n in variances]
    # 77 % off and more after 10 steps, 11 % after 50, where it makes no difference to the error
    assert len(off) == 2 and min(off) > {10: 0.5, 50: 0.05}[steps]
    if steps == 10:
        assert error_of(assembled, average, *overrides) > val.value + 0.1


def test_swa_is_the_mean_of_epoch_ends_with_statistics_of_its_own(swa, assembled, series):
    """Before half of the run the model's own weights count, afterwards the mean."""
    result, states = swa
    ends, logged = states[STEPS - 1 :: STEPS], series(result, "risk/val")
    for epoch in (1, 2):
        assert logged[epoch] == pytest.approx(risk_of(assembled, ends[epoch - 1]), rel=1e-12)
    train = assembled(*RECIPE).data.train
    for epoch in (4, 6):
        recipe = assembled(*RECIPE)
        average = AveragedModel(recipe.model)
        for state in ends[2:epoch]:
            recipe.model.load_state_dict(state)
            average.update_parameters(recipe.model)
        update_bn([train.x], average)
        state = average.module.state_dict()
        assert logged[epoch] == pytest.approx(risk_of(assembled, state), rel=1e-11)
        if result.summary["risk/val"].epoch == epoch:
            name = "hidden.0.normalization.running_mean"
            torch.testing.assert_close(best_state(result)[name], state[name])
    assert abs(logged[6] - risk_of(assembled, ends[5])) > 1e-4


def sort_classes(recipe):
    """Sort the training samples by their classes, and return them."""
    train = recipe.data.train
    order = train.y.argsort()
    recipe.data.train = TensorSplit(train.x[order], train.y[order])
    return recipe.data.train


def test_refreshed_statistics_are_those_of_all_the_inputs(assembled):
    """1078 samples are measured in two blocks; the file is sorted by its classes."""
    given = ["data=digits", "data.num_train=1078", "model.width=8", "model.depth=1"]
    recipe = assembled(*given, "model.normalization=batch", "regularizer=dropout")
    train, norm = sort_classes(recipe), "hidden.0.normalization."
    host = Host(DevicePrecision(torch.device("cpu"), "64-true"))
    objective = Objective(recipe.model, recipe.surrogate)
    estimator = RiskEstimator(recipe, objective, host)
    assert [len(x) for x in estimator.training_inputs()] == [539, 539]
    before = {name: t.clone() for name, t in recipe.model.state_dict().items()}
    drawn = torch.get_rng_state()
    state = estimator.settle_state({}, refresh=True)
    hidden = recipe.model.hidden[0].linear(train.x.flatten(1)).detach()
    torch.testing.assert_close(state[norm + "running_mean"], hidden.mean(0))
    torch.testing.assert_close(state[norm + "running_var"], hidden.var(0))
    assert same(recipe.model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_blocks_of_one_class_each_are_mixed(assembled):
    """A second layer sees what the first makes of a block: of one class, or of all."""
    given = ["data=gaussians", "data.source.num_samples=5000", "data.source.distance=6"]
    given += ["model.width=8", "model.normalization=batch", "trainer.precision=64-true"]
    recipe = assembled(*given)
    train = sort_classes(recipe)
    host = Host(DevicePrecision(torch.device("cpu"), "64-true"))
    estimator = RiskEstimator(recipe, Objective(recipe.model, recipe.surrogate), host)
    state = estimator.settle_state({}, refresh=True)
    update_bn([train.x], recipe.model)  # all at once
    for name, exact in recipe.model.state_dict().items():
        if "running_var" in name:
            torch.testing.assert_close(state[name], exact, rtol=0.02, atol=0)
    update_bn(train.x.split(1000), recipe.model)
    sorted_var = recipe.model.state_dict()["hidden.1.normalization.running_var"]
    assert not torch.allclose(state["hidden.1.normalization.running_var"], sorted_var, rtol=0.2)


SCHEDULE_FREE = [*RECIPE, "optimizer=schedule_free_adamw", "optimizer.lr=0.02", "regularizer=[]"]


def test_measuring_leaves_schedule_free_training_alone(run, last_weights):
    """Its eval() moves the weights and its train() moves them back, but not to the last bit."""
    often, once = run(*SCHEDULE_FREE), run(*SCHEDULE_FREE, "risk.every=6")
    assert len(often.history) > 1.5 * len(once.history)
    assert same(last_weights(often), last_weights(once))


def test_schedule_free_is_measured_at_its_average(run, last_weights, assembled):
    """x is what eval() makes of y, and x is kept, with the statistics of x."""
    result = run(*SCHEDULE_FREE, "optimizer.betas=[0.5,0.999]")
    kept, last = best_state(result), last_weights(result)
    for name, w in refreshed(assembled, kept).items():
        if "running" in name:
            torch.testing.assert_close(kept[name], w, rtol=1e-11, atol=1e-14)
            assert not torch.allclose(last[name], w, rtol=1e-3)
    value = result.summary["risk/val"]
    assert value.epoch == 6
    assert value.value == pytest.approx(risk_of(assembled, kept), rel=1e-12)
    assert abs(value.value - risk_of(assembled, last)) > 1e-4
    weights = torch.load(result.run.last, weights_only=True)["optimizer_states"][0]["state"]
    z = weights[0]["z"]  # y = β x + (1 − β) z, of the first parameter
    y, x = last["hidden.0.linear.weight"], kept["hidden.0.linear.weight"]
    torch.testing.assert_close(y, 0.5 * x + 0.5 * z, rtol=1e-9, atol=1e-12)


TWENTY_ONE = ["data=mnist1d", "data.num_train=21", "data.batch_size=10"]
EDITS = {
    "dropout": ["regularizer=[dropout,mixup]"],
    "signals": ["regularizer=[cutmix,dropout,swa]", *TWENTY_ONE, "model=cnn1d"],
    "noise": ["regularizer=[input_noise,max_norm,l2]"],
    "ema": ["regularizer=[dropout,ema]"],
    "swa": ["regularizer=[dropout,swa]", "regularizer.swa.start=0.1"],
    "spectral norm": ["regularizer=[spectral_norm,dropout,ema]"],
    "penalties": ["regularizer=[input_gradient,entropy,orthogonality,dropout,swa]"],
    "norms": ["regularizer=[l1,elastic_net,group_lasso]"],
}


def test_every_regularizer_is_measured():
    """All but early stopping, which follows what is measured, and augment, of images: its own."""
    edits = " ".join(text for given in EDITS.values() for text in given)
    names = {path.stem for path in Path(truerisk.__file__).parents[2].glob("conf/regularizer/*")}
    assert names - set(re.findall(r"\w+", edits)) == {"augment", "early_stopping"}


@pytest.mark.parametrize("edits", EDITS)
def test_measuring_leaves_training_alone(run, last_weights, edits):
    """Dropout masks, running statistics and singular vectors too."""
    given = [*RECIPE, "trainer.max_epochs=3", *EDITS[edits]]
    often, once = run(*given), run(*given, "risk.every=3", "risk.train_samples=7")
    assert len(often.history) > 1.2 * len(once.history)
    assert same(last_weights(often), last_weights(once))


def layer_norms(state):
    """σ of every layer that divides by its singular value."""
    for name, weight in state.items():
        if name.endswith(".original"):
            u, v = (state[name.replace("original", f"0.{key}")] for key in ("_u", "_v"))
            matrix = weight.flatten(1)
            yield torch.linalg.matrix_norm(matrix / (u @ matrix @ v), 2)


@pytest.mark.parametrize("averaged", ["", ",ema", ",swa"])
def test_spectral_norm_is_one_where_it_is_measured(run, last_weights, averaged):
    given = ["data=wine", "data.batch_size=20", "model.width=8", "trainer.max_epochs=3"]
    given += ["optimizer=adam", "optimizer.lr=0.1", f"regularizer=[spectral_norm{averaged}]"]
    result = run(*given)
    norms = list(layer_norms(best_state(result)))
    assert len(norms) == 3
    assert all(0.99 <= norm <= 1.01 for norm in norms)
    assert max(layer_norms(last_weights(result))) > 1.1  # what one round a step gives


class Tied(nn.Module):
    """Two layers that share their weights, with or without batch norm between them."""

    def __init__(self, input_shape, output_size, frozen=False, copied=True):
        super().__init__()
        width = math.prod(input_shape)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm, self.last = nn.BatchNorm1d(width), nn.Linear(width, output_size)
        if frozen:
            self.norm.eval().requires_grad_(False)
        if not copied:  # as one that holds a lock, or a tensor that is no leaf
            self.lock = (line for line in ())

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)))))))


OWN = ["data=wine", "data.batch_size=20", "model=tied", "optimizer.lr=0.01"]
OWN += ["trainer.precision=64-true", "trainer.max_epochs=3"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Train `Tied`, changed by overrides."""
    module = types.ModuleType("tied_layers")
    module.Tied = Tied
    monkeypatch.setitem(sys.modules, "tied_layers", module)
    (tmp_path / "model").mkdir()
    text = "_target_: tied_layers.Tied\nfrozen: false\ncopied: true\n"
    (tmp_path / "model" / "tied.yaml").write_text(text)

    def train(*overrides):
        with mock.patch("truerisk.show.figure.draw_result"):
            return truerisk.train([*OWN, *overrides], config_dir=tmp_path, folder=tmp_path / "run")

    return train


@pytest.mark.parametrize("averaged", ["ema", "swa"])
def test_tied_weights_are_averaged_once(own, averaged):
    result = own(f"regularizer={averaged}")
    kept = best_state(result)
    assert torch.equal(kept["first.weight"], kept["second.weight"])
    assert result.summary["risk/test"].value < 1


def test_a_model_that_cannot_be_copied_is_averaged(own):
    result = own("regularizer=swa", "regularizer.swa.start=0.1", "model.copied=false")
    assert result.summary["risk/test"].value < 1


@pytest.mark.parametrize("averaged", ["[]", "ema", "swa"])
def test_a_frozen_module_stays_in_eval_mode(own, last_weights, averaged):
    """Its statistics are those it came with, however often the run is measured."""
    result = own(f"regularizer={averaged}", "model.frozen=true")
    for state in (last_weights(result), best_state(result)):
        assert torch.equal(state["norm.running_mean"], torch.zeros(13, dtype=torch.float64))
        assert torch.equal(state["norm.running_var"], torch.ones(13, dtype=torch.float64))
    assert result.summary["risk/test"].value < 1


NORMALIZED = ["model.normalization=batch", "trainer.max_epochs=1", "model.width=4"]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (["data=iris", "data.batch_size=89"], [90]),
        (
            ["data=mnist1d", "data.num_train=21", "step.accumulate=2", "data.batch_size=10"],
            [10, 11],
        ),
        ([*TWENTY_ONE, "model=cnn1d"], [10, 10, 1]),
    ],
)
def test_a_sample_that_is_left_over_joins_the_batch_before(run, monkeypatch, given, sizes):
    """Where batch norm could not train on it; a convolution's can, on its positions."""
    seen, take = [], Step.__call__

    def noted(step, micro_batches):
        seen.extend(len(batch) for batch, _ in micro_batches)
        take(step, micro_batches)

    monkeypatch.setattr(Step, "__call__", noted)
    assert run(*given, *NORMALIZED).status == "finished"
    assert seen == sizes


def test_batches_of_one_are_refused_before_training():
    with pytest.raises(ConfigError, match=r"batch norm.*data\.batch_size to 2"):
        truerisk.train(["data=iris", "data.batch_size=1", *NORMALIZED])
