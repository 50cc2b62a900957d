"""What each precision computes in, and what loss scaling does to a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError, Diverged
from truerisk.model import MLP

RECIPE = ["data=digits", "data.batch_size=100", "model.width=16", "regularizer=[]"]
RECIPE += ["optimizer=momentum", "trainer.max_epochs=4"]
PRECISIONS = ("32-true", "64-true", "bf16-mixed")


def watched(monkeypatch):
    """The types of a model's inputs, weights and outputs, as it trains and as it is measured."""
    seen, forward = {True: set(), False: set()}, MLP.forward

    def look(model, x):
        outputs = forward(model, x)
        weights = {p.dtype for p in model.parameters()}
        seen[model.training].add((x.dtype, *weights, outputs.dtype))
        return outputs

    monkeypatch.setattr(MLP, "forward", look)
    return seen


@pytest.fixture(scope="module")
def results(run):
    """The same recipe in each precision, and the types its model saw."""
    found = {}
    for precision in PRECISIONS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            seen = watched(monkeypatch)
            found[precision] = run(*RECIPE, f"trainer.precision={precision}"), seen
    return found


@pytest.mark.parametrize(
    ("precision", "inside", "outputs"),
    [
        ("32-true", torch.float32, torch.float32),
        ("64-true", torch.float64, torch.float64),
        ("bf16-mixed", torch.float32, torch.bfloat16),
    ],
)
def test_types(results, precision, inside, outputs):
    _, seen = results[precision]
    assert seen[True] == {(inside, inside, outputs)}
    assert (inside, inside, outputs) in seen[False]


def history(results, precision, name, series):
    return series(results[precision][0], name).to_numpy()


@pytest.mark.parametrize("name", ["risk/train", "risk/val", "batch/loss"])
def test_float32_is_float64_to_seven_digits(results, series, name):
    single = history(results, "32-true", name, series)
    double = history(results, "64-true", name, series)
    assert single == pytest.approx(double, rel=2e-5)
    assert np.abs(single / double - 1).max() > 1e-9


@pytest.mark.parametrize("name", ["risk/train", "risk/val", "batch/loss"])
def test_bfloat16_is_float32_to_two_digits(results, series, name):
    """Its 8 bits round a number by up to 2⁻⁹; a few layers and steps make that a few times more."""
    half = history(results, "bf16-mixed", name, series)
    single = history(results, "32-true", name, series)
    assert half == pytest.approx(single, rel=8 * 2**-9)
    assert np.abs(half / single - 1).max() > 2**-14
    assert half[-1] < 0.7 * half[0]


def test_losses_are_summed_in_full_precision(results):
    """A mean of 360 losses kept in bfloat16 would be a multiple of 2⁻⁸ or so."""
    value = results["bf16-mixed"][0].summary["risk/test"].value
    assert value != torch.tensor(value).bfloat16().item()


def test_results_keep_their_precision(results, assembled):
    result, _ = results["64-true"]
    assert {p.dtype for p in result.model.parameters()} == {torch.float64}
    test = assembled(*RECIPE).data.test
    losses = torch.nn.functional.cross_entropy(result.network(test.x), test.y)
    assert losses.item() == pytest.approx(result.summary["risk/test"].value, rel=1e-13)


def test_an_evaluation_repeats_the_run_in_its_precision(results):
    from truerisk.evaluate import evaluate

    for precision in PRECISIONS:
        result, _ = results[precision]
        again = evaluate(result.folder).summary
        assert again["risk/test"].value == result.summary["risk/test"].value


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_float16_on_a_cpu_is_refused(run, precision):
    with pytest.raises(ConfigError, match=f"trainer.precision={precision}"):
        run(*RECIPE, f"trainer.precision={precision}")


# --- loss scaling ---------------------------------------------------------------------------------

SCALED = ["data=iris", "data.batch_size=30", "model.width=8", "regularizer=[]"]


def scaler(**options):
    return torch.amp.GradScaler("cpu", **options)


def weights(recipe):
    return [p.detach().clone() for p in recipe.model.parameters()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
@pytest.mark.parametrize("clip", ["norm", "value"])
def test_scaling_by_a_power_of_two_changes_nothing(stepping, micro_batches, optimizer, clip):
    given = [*SCALED, f"optimizer={optimizer}", f"step.clip.{clip}=0.02", "step.accumulate=2"]
    plain, step = stepping(*given)
    scaled, scaled_step = stepping(*given, scaler=scaler(init_scale=2.0**12, growth_interval=7))
    for micro in micro_batches(plain, 20):
        step(micro)
        scaled_step(micro)
    assert scaled_step.host.scaler.get_scale() == 2.0**14  # it has grown twice
    for a, b in zip(weights(plain), weights(scaled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
    assert scaled_step.state.sums.means() == pytest.approx(step.state.sums.means(), rel=1e-12)


def overflow(grad):
    """What float16 does to a gradient."""
    return grad.where(grad.abs() < 65504, torch.inf)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_an_overflowing_step_is_skipped(stepping, micro_batches, optimizer):
    """The weights and the optimizer's state stay; the scale is halved until steps go through."""
    given = [*SCALED, f"optimizer={optimizer}"]
    recipe, step = stepping(*given, scaler=scaler(init_scale=2.0**24))
    plain, plain_step = stepping(*given)
    for p in recipe.model.parameters():
        p.register_hook(overflow)
    skipped = 0
    for micro in micro_batches(recipe, 30):
        before, scale = weights(recipe), step.host.scaler.get_scale()
        step(micro)
        if step.host.scaler.get_scale() < scale:
            skipped += 1
            assert all(map(torch.equal, weights(recipe), before))
        else:
            plain_step(micro)
    assert 3 <= skipped <= 20 and step.state.step == 30
    for a, b in zip(weights(plain), weights(recipe), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    assert step.state.sums.norms == 30 - skipped
    mine, theirs = step.state.sums.means()["grad_norm"], plain_step.state.sums.means()["grad_norm"]
    assert mine == pytest.approx(theirs, rel=1e-12)


def test_a_loss_that_is_not_finite_ends_the_run_under_scaling_too(stepping, micro_batches):
    recipe, step = stepping(*SCALED, "optimizer=sgd", scaler=scaler())
    with torch.no_grad():
        recipe.model.output.bias[0] = torch.nan
    (micro,) = micro_batches(recipe, 1)
    with pytest.raises(Diverged, match=r"step 1: weight 'output.bias'"):
        step(micro)


@pytest.mark.parametrize("optimizer", ["sam", "lbfgs"])
def test_closures_are_refused_under_scaling(optimizer):
    from truerisk.assemble import assemble
    from truerisk.config.compose import compose

    cfg = compose([f"optimizer={optimizer}", "data=iris", "trainer.precision=16-mixed"])
    with pytest.raises(ConfigError, match="loss scaling"):
        assemble(cfg)
