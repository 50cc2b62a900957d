"""Estimates of risk, and how far they may be off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from truerisk.objective import Objective
from truerisk.risk.estimate import MeanEstimate, estimate_gap, measure_batches
from truerisk.risk.measured import Measured

CPU = torch.device("cpu")


def estimate(values, *cuts):
    found = MeanEstimate()
    for part in torch.as_tensor(values).tensor_split(cuts):
        found.update(part)
    return found


@pytest.mark.parametrize("cuts", [(), (1,), (90,), (7, 7, 50)], ids=str)
def test_mean_and_standard_error(cuts):
    values = np.random.default_rng(0).lognormal(size=100)
    found = estimate(values, *cuts).to_measured(epoch=3)
    assert found.value == pytest.approx(values.mean(), rel=1e-14)
    assert found.stderr == pytest.approx(values.std(ddof=1) / 10, rel=1e-12)
    assert found.epoch == 3


def test_float32_losses_are_summed_in_float64():
    values = torch.full((3,), 0.1, dtype=torch.float32)
    found = estimate(values.repeat(100_000))
    assert found.to_measured().value == pytest.approx(values[0].item(), rel=1e-12)


def test_standard_error_of_one_value_is_unknown():
    assert math.isnan(estimate([2.0]).to_measured().stderr)


@pytest.mark.parametrize("n", [5, 15, 20])
def test_finite_population_correction_by_simulation(n):
    """The standard error is the deviation of the mean of n out of 20 values, drawn anew."""
    generator = torch.Generator().manual_seed(0)
    population = torch.randn(20, generator=generator, dtype=torch.float64).exp()
    draws = [population[torch.randperm(20, generator=generator)[:n]] for _ in range(1000)]
    found = [estimate(draw).to_measured(population=20) for draw in draws]
    variance = np.mean([m.stderr**2 for m in found])
    errors = np.array([m.value for m in found]) - population.mean().item()
    assert np.mean(errors**2) == pytest.approx(variance, rel=0.15, abs=1e-28)
    if n < 20:
        uncorrected = np.mean([estimate(draw).to_measured().stderr ** 2 for draw in draws])
        assert uncorrected > 1.25 * variance
    else:
        assert variance == 0


def test_gap():
    assert estimate_gap(Measured(1.0, 0.0, 4), Measured(3.0, 0.5, 4)) == Measured(2.0, 0.5, 4)
    assert estimate_gap(Measured(3.0, 0.6, 4), Measured(1.0, 0.8, 4)) == Measured(
        -2.0, pytest.approx(1.0), 4
    )


@pytest.fixture
def digits(assembled):
    return assembled("data=digits", "model=linear", "regularizer=[l2,entropy]")


@pytest.mark.parametrize("size", [1000, 256, 7])
def test_measure_is_exact_whatever_the_batches(digits, size):
    """1079 samples make no even batches."""
    objective = Objective(digits.model.eval(), digits.surrogate, digits.hooks("penalty"))
    train = digits.data.train
    weights = {n: p.detach().clone() for n, p in digits.model.named_parameters()}
    batches = train.batches(torch.arange(len(train)).split(size))
    found = measure_batches(objective, None, batches, CPU)
    outputs = digits.model(train.x).detach()
    losses = cross_entropy(outputs, train.y, reduction="none")
    wrong = (outputs.argmax(1) != train.y).double()
    named = found.name_risks("train", 2)
    for name, values in {"risk/train": losses, "error/train": wrong}.items():
        assert named[name].value == pytest.approx(values.mean().item(), rel=1e-13)
        stderr = values.std().item() / math.sqrt(len(train))
        assert named[name].stderr == pytest.approx(stderr, rel=1e-10)
    entropy = torch.distributions.Categorical(logits=outputs).entropy().mean()
    coefficient = digits.regularizers["entropy"].coefficient
    assert abs(found.penalties["entropy"]) == pytest.approx(coefficient * entropy.item(), rel=1e-12)
    l2 = 5e-5 * digits.model.output.weight.square().sum().item()
    assert found.penalties["l2"] == pytest.approx(l2, rel=1e-13)
    for name, p in digits.model.named_parameters():
        assert torch.equal(p, weights[name]) and p.grad is None


@pytest.fixture(scope="module")
def result(run):
    """A run whose model in evaluation differs from the one that trains."""
    given = ["data=digits", "model.width=16", "model.normalization=batch", "regularizer=dropout"]
    given += ["trainer.precision=64-true", "trainer.max_epochs=3", "risk.train_samples=500"]
    return run(*given, "data.batch_size=64")


def losses_of(result, recipe, split):
    data = getattr(recipe.data, split)
    with torch.no_grad():
        outputs = result.network.double().eval()(data.x)
    losses = cross_entropy(outputs, data.y, reduction="none")
    return losses, (outputs.argmax(1) != data.y).double()


def test_summary_is_what_the_best_weights_do(result, assembled):
    recipe = assembled("data=digits")
    assert result.summary["risk/test"].epoch == result.summary["risk/val"].epoch
    for split in ("train", "val", "test"):
        for name, values in zip(("risk", "error"), losses_of(result, recipe, split), strict=True):
            found = result.summary[f"{name}/{split}"]
            assert found.value == pytest.approx(values.mean().item(), rel=1e-12), (name, split)
            stderr = values.std().item() / math.sqrt(len(values)) if split != "train" else 0.0
            assert found.stderr == pytest.approx(stderr, rel=1e-9), (name, split)
    val, train, difference = (result.summary[f"risk/{n}"] for n in ("val", "train", "gap"))
    assert difference.value == pytest.approx(val.value - train.value)
    assert difference.stderr == val.stderr


def test_best_weights_have_the_lowest_validation_risk(result, series):
    risks = series(result, "risk/val")
    assert result.summary["risk/val"].epoch == risks.idxmin()
    assert result.summary["risk/val"].value == pytest.approx(risks.min(), rel=1e-12)


def test_train_risk_of_an_epoch_is_that_of_a_fixed_subset(result, assembled, series):
    """500 of 1079 training samples: near the whole set's risk, with the corrected error."""
    recipe = assembled("data=digits")
    losses, _ = losses_of(result, recipe, "train")
    epoch = result.summary["risk/val"].epoch
    value = series(result, "risk/train")[epoch]
    stderr = series(result, "risk/train/stderr")[epoch]
    expected = losses.std().item() / math.sqrt(500) * math.sqrt(1 - 500 / len(losses))
    assert stderr == pytest.approx(expected, rel=0.25)
    assert 0 < abs(value - losses.mean().item()) < 4 * stderr


def test_train_and_validation_risk_are_measured_alike(run, series, tmp_path):
    """Where all samples of a class are the same, both splits hold the same: the gap is 0."""
    y = np.arange(3).repeat(20)
    np.savez(tmp_path / "same.npz", x=np.eye(3)[y] * 2.0, y=y)
    given = ["data=arrays", f"data.source.path={tmp_path}/same.npz", "data.batch_size=9"]
    given += ["regularizer=[dropout,input_noise,mixup]", "model.normalization=batch"]
    given += ["trainer.precision=64-true", "risk.train_samples=36"]  # all of them
    result = run(*given, "trainer.max_epochs=3")
    train, val = series(result, "risk/train"), series(result, "risk/val")
    assert len(set(train)) == 4
    assert list(val) == pytest.approx(list(train), rel=1e-14)
    assert series(result, "batch/loss")[3] > 1.05 * train[3]


SMOOTHED = ["data=gaussians", "data.source.num_samples=300", "model=linear"]
SMOOTHED += ["trainer.precision=64-true", "trainer.max_epochs=3", "loss.label_smoothing=0.4"]


def test_risks_are_those_of_the_targets_as_they_are(run, series, assembled):
    """J and the loss of the batches have the smoothing; the Bayes risk is that of the risks."""
    result = run(*SMOOTHED, "risk.true_samples=11000", "risk.train_samples=1000")
    recipe = assembled(*SMOOTHED)
    state = torch.load(result.run.best, weights_only=True)["state"]
    recipe.model.load_state_dict(state)
    with torch.no_grad():
        for name in ("val", "test"):
            split = getattr(recipe.data, name)
            expected = cross_entropy(recipe.model.eval()(split.x), split.y).item()
            assert result.summary[f"risk/{name}"].value == pytest.approx(expected, rel=1e-12)
        train = recipe.data.train
        outputs = recipe.model(train.x)
        plain = cross_entropy(outputs, train.y).item()
        smoothed = cross_entropy(outputs, train.y, label_smoothing=0.4).item()
    epoch = result.summary["risk/val"].epoch
    assert abs(plain - smoothed) > 0.01
    assert series(result, "risk/train")[epoch] == pytest.approx(plain, rel=1e-9)
    assert series(result, "objective")[epoch] == pytest.approx(smoothed, rel=1e-9)
    assert result.summary["risk/true"].value > result.summary["risk/bayes"].value


def test_the_loss_of_batches_is_the_one_that_training_lowers(run, series):
    still = [*SMOOTHED, "data.batch_size=full", "optimizer=gd", "optimizer.lr=1e-12"]
    result = run(*still, "trainer.max_epochs=1", "risk.train_samples=1000")
    assert series(result, "batch/loss")[1] == pytest.approx(series(result, "objective")[1])


def test_a_gap_of_what_is_no_number_has_no_size():
    broken = Measured(math.nan, math.nan, 0, 10)
    gap = estimate_gap(broken, broken)
    assert gap.size is None and math.isnan(gap.value)


@pytest.mark.parametrize("unit", [1e-200, 1e-3, 1.0, 1e100, 1e200])
def test_the_gap_of_risks_of_any_size(unit):
    """Fourth powers of standard errors of 1e100 are no numbers: a run that diverges has such."""
    train, val = Measured(unit, 0.3 * unit, 5, 21), Measured(2 * unit, 0.4 * unit, 5, 11)
    assert estimate_gap(train, val).size == 22
