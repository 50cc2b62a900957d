"""Averaged weights are what is measured and kept; training itself does not notice."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn

from truerisk.core.deterministic import refresh_statistics
from truerisk.engine.host import Host
from truerisk.engine.measure import RiskEstimator
from truerisk.engine.precision import DevicePrecision
from truerisk.engine.step import Step

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


def exponential(states):
    """w̄₁ = w₁, w̄ₜ = d w̄ₜ₋₁ + (1 − d) wₜ with d = min(0.9, (1 + t)/(10 + t)); after each step."""
    average = {name: w.clone() for name, w in states[0].items()}
    for t, state in enumerate(states, 1):
        d = min(0.9, (1 + t) / (10 + t)) if t > 1 else 0.0
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


def best_state(result):
    return torch.load(result.run.best, weights_only=True)["state"]


def test_ema_is_measured_and_kept(ema, assembled, series):
    result, states = ema
    averages = list(exponential(states))[STEPS - 1 :: STEPS]
    logged = series(result, "risk/val")
    for epoch, average in enumerate(averages, 1):
        assert logged[epoch] == pytest.approx(risk_of(assembled, average), rel=1e-11)
    own = risk_of(assembled, states[STEPS - 1])
    assert abs(logged[1] - own) > 1e-3
    best = result.summary["risk/val"].epoch
    assert best > 1
    for name, w in best_state(result).items():
        torch.testing.assert_close(w, averages[best - 1][name], rtol=1e-11, atol=1e-14)


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


def test_refreshed_statistics_are_those_of_all_the_inputs(assembled):
    """1078 samples are measured in even blocks, so that none counts more than another."""
    given = ["data=digits", "data.num_train=1078", "model.width=8", "model.depth=1"]
    recipe = assembled(*given, "model.normalization=batch")
    host = Host(DevicePrecision(torch.device("cpu"), "64-true"))
    blocks = list(RiskEstimator(recipe, None, host).training_inputs())
    assert [len(x) for x in blocks] == [539, 539]
    before = {name: t.clone() for name, t in recipe.model.state_dict().items()}
    state = refresh_statistics(recipe.model, before, blocks)
    hidden = recipe.model.hidden[0].linear(recipe.data.train.x.flatten(1)).detach()
    torch.testing.assert_close(state["hidden.0.normalization.running_mean"], hidden.mean(0))
    within = torch.stack([hidden[:539].var(0), hidden[539:].var(0)]).mean(0)
    torch.testing.assert_close(state["hidden.0.normalization.running_var"], within)
    assert same(recipe.model.state_dict(), before)


SCHEDULE_FREE = [*RECIPE, "optimizer=schedule_free_adamw", "optimizer.lr=0.02", "regularizer=[]"]


def test_measuring_leaves_schedule_free_training_alone(run, last_weights):
    """Its eval() moves the weights and its train() moves them back, but not to the last bit."""
    often, once = run(*SCHEDULE_FREE), run(*SCHEDULE_FREE, "risk.every=6")
    assert len(often.history) > 1.5 * len(once.history)
    assert same(last_weights(often), last_weights(once))


def test_schedule_free_is_measured_at_its_average(run, last_weights, assembled):
    """x is what eval() makes of y, and x is kept."""
    result = run(*SCHEDULE_FREE, "optimizer.betas=[0.5,0.999]")
    kept, last = best_state(result), last_weights(result)
    value = result.summary["risk/val"]
    assert value.epoch == 6
    assert value.value == pytest.approx(risk_of(assembled, kept), rel=1e-12)
    assert abs(value.value - risk_of(assembled, last)) > 1e-4
    weights = torch.load(result.run.last, weights_only=True)["optimizer_states"][0]["state"]
    z = weights[0]["z"]  # y = β x + (1 − β) z, of the first parameter
    y, x = last["hidden.0.linear.weight"], kept["hidden.0.linear.weight"]
    torch.testing.assert_close(y, 0.5 * x + 0.5 * z, rtol=1e-9, atol=1e-12)


def test_measuring_leaves_training_alone(run, last_weights):
    """Dropout masks and running statistics too."""
    given = [*RECIPE, "regularizer=[dropout,mixup]"]
    often, once = run(*given), run(*given, "risk.every=6", "risk.train_samples=7")
    assert same(last_weights(often), last_weights(once))
