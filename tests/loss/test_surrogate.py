"""Losses fitted to the data's task."""

import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, zero_one_loss
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.loss import Hinge, adapt_loss

CONF = Path(__file__).parents[2] / "conf" / "loss"
OPTIONS = {
    "cross_entropy": "classification",
    "bce": "classification",
    "hinge": "classification",
    "mse": "regression",
    "mae": "regression",
    "huber": "regression",
    "ordinal": "classification",
    "squared": "classification",
    "poisson": "regression",
    "quantile": "regression",
}


def option(name):
    return instantiate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def samples(task, columns, targets=None, n=40):
    torch.manual_seed(1)
    outputs, targets = torch.randn(n, columns), targets or columns
    y = (
        torch.randint(0, max(targets, 2), (n,))
        if task == "classification"
        else torch.randn(n, targets)
    )
    return outputs, y


def test_every_option_is_known_here():
    assert {f.stem for f in CONF.glob("*.yaml")} == {*OPTIONS, "value"}


@pytest.mark.parametrize("name", OPTIONS)
def test_yaml_starts_with_one_short_comment(name):
    first = (CONF / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) <= 92


FITS = [(n, t, k) for n, t in OPTIONS.items() for k in (1, 2, 3) if k > 1 or t == "regression"]


@pytest.mark.parametrize(("name", "task", "num_outputs"), FITS)
def test_one_loss_a_sample_and_vmap_agrees(name, task, num_outputs):
    fitted = adapt_loss(option(name), task, num_outputs)
    outputs, y = samples(task, fitted.output_size, num_outputs)
    losses = fitted(outputs, y)
    assert losses.shape == (40,) and losses.dtype == torch.float32
    one_by_one = torch.cat([fitted(o[None], t[None]) for o, t in zip(outputs, y, strict=True)])
    torch.testing.assert_close(losses, one_by_one)
    mapped = torch.vmap(fitted, (0, None))(torch.stack([outputs, outputs]), y)
    torch.testing.assert_close(mapped, torch.stack([losses, losses]))
    gradient = torch.func.grad(lambda o: fitted(o, y).sum())(outputs)
    o = outputs.clone().requires_grad_()
    fitted(o, y).sum().backward()
    torch.testing.assert_close(gradient, o.grad)


@pytest.mark.parametrize(("name", "task"), OPTIONS.items())
def test_misfits_are_refused_with_what_fits(name, task):
    other = "regression" if task == "classification" else "classification"
    with pytest.raises(ConfigError, match="loss=") as caught:
        adapt_loss(option(name), other, 3)
    fitting = [n for n, t in OPTIONS.items() if t == other]
    assert all(f"loss={n}" in str(caught.value) for n in fitting)
    assert task in str(caught.value) and other in str(caught.value)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_value_of_a_function_is_no_loss_of_samples(task):
    with pytest.raises(ConfigError, match="is for function") as caught:
        adapt_loss(option("value"), task, 3)
    fitting = [n for n, t in OPTIONS.items() if t == task]
    assert all(f"loss={n}" in str(caught.value) for n in fitting)
    outputs = torch.tensor([[3.0], [-1.0]])
    assert adapt_loss(option("value"), "function", 1)(outputs, None).tolist() == [3.0, -1.0]


def test_cross_entropy_against_sklearn():
    outputs, y = samples("classification", 3)
    expected = log_loss(y.numpy(), outputs.double().softmax(1).numpy())
    fitted = adapt_loss(option("cross_entropy"), "classification", 3)
    assert fitted.output_size == 3
    assert float(fitted(outputs, y).mean()) == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    outputs, y = samples("classification", 3)
    loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.3)
    log_p = outputs.log_softmax(1)
    expected = -0.7 * log_p.gather(1, y[:, None])[:, 0] - 0.3 * log_p.mean(1)
    torch.testing.assert_close(adapt_loss(loss, "classification", 3)(outputs, y), expected)


class Sharpened(nn.Module):
    """A loss of one's own with a temperature that only training sees."""

    training_only: ClassVar = {"temperature": 1.0}

    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs, y):
        return F.cross_entropy(outputs / self.temperature, y, reduction="none")


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="none", label_smoothing=0.3), Sharpened(2.0)]
)
def test_what_only_training_sees_is_no_part_of_a_risk(loss):
    outputs, y = samples("classification", 3)
    fitted = adapt_loss(loss, "classification", 3)
    plain = F.cross_entropy(outputs, y, reduction="none")
    trained = fitted(outputs, y)
    assert fitted.reports_others and not torch.allclose(trained, plain, rtol=0.01)
    assert torch.equal(fitted.report_losses(trained, outputs, y), plain)
    assert torch.equal(fitted(outputs, y), trained)


def test_bce_of_two_classes_has_one_output_and_sklearns_value():
    fitted = adapt_loss(option("bce"), "classification", 2)
    outputs, y = samples("classification", 1)
    assert fitted.output_size == 1
    expected = log_loss(y.numpy(), outputs[:, 0].sigmoid().double().numpy())
    assert float(fitted(outputs, y).mean()) == pytest.approx(expected, rel=1e-5)


def test_bce_of_more_classes_is_the_mean_of_one_against_the_rest():
    fitted = adapt_loss(option("bce"), "classification", 4)
    outputs, y = samples("classification", 4)
    each = [
        F.binary_cross_entropy(outputs[:, k].sigmoid(), (y == k).float(), reduction="none")
        for k in range(4)
    ]
    torch.testing.assert_close(fitted(outputs, y), torch.stack(each).mean(0))


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", mean_squared_error), ("mae", mean_absolute_error)]
)
def test_regression_against_sklearn(name, expected):
    outputs, y = samples("regression", 2)
    risk = float(adapt_loss(option(name), "regression", 2)(outputs, y).mean())
    assert risk == pytest.approx(expected(y.numpy(), outputs.numpy()), rel=1e-5)


def test_huber_is_quadratic_then_linear():
    fitted = adapt_loss(nn.HuberLoss(reduction="none", delta=2.0), "regression", 1)
    losses = fitted(torch.tensor([[1.0], [2.0], [5.0]]), torch.zeros(3, 1))
    torch.testing.assert_close(losses, torch.tensor([0.5, 2.0, 2 * (5 - 1.0)]))


@pytest.mark.parametrize("name", ["cross_entropy", "hinge", "bce"])
def test_errors_against_sklearn(name):
    fitted = adapt_loss(option(name), "classification", 3)
    outputs, y = samples("classification", 3)
    errors = fitted.compute_errors(outputs, y)
    assert set(errors.tolist()) == {0.0, 1.0}
    assert float(errors.mean()) == pytest.approx(zero_one_loss(y, outputs.argmax(1)))


def test_error_of_a_single_output_is_by_sign():
    fitted = adapt_loss(option("bce"), "classification", 2)
    errors = fitted.compute_errors(
        torch.tensor([[2.0], [2.0], [-1.0], [-1.0]]), torch.tensor([1, 0, 1, 0])
    )
    assert errors.tolist() == [0, 1, 1, 0]


def test_regression_has_no_errors():
    outputs, y = samples("regression", 1)
    assert adapt_loss(option("mse"), "regression", 1).compute_errors(outputs, y) is None


@pytest.mark.parametrize(("name", "task"), OPTIONS.items())
def test_half_precision_outputs_are_raised_to_float32(name, task):
    fitted = adapt_loss(option(name), task, 3)
    outputs, y = samples(task, fitted.output_size, 3)
    low = fitted(outputs.bfloat16(), y)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, fitted(outputs.bfloat16().float(), y))


def test_targets_take_the_outputs_precision():
    fitted = adapt_loss(option("mse"), "regression", 1)
    outputs, y = samples("regression", 1)
    assert fitted(outputs.double(), y).dtype == torch.float64


def test_class_weights_work_and_move_with_the_surrogate():
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    loss = nn.CrossEntropyLoss(reduction="none", weight=weight)
    fitted = adapt_loss(loss, "classification", 3)
    outputs, y = samples("classification", 3)
    expected = weight[y] * F.cross_entropy(outputs.double(), y, reduction="none")
    torch.testing.assert_close(fitted(outputs.double(), y), expected)
    assert fitted.float().loss.weight.dtype == torch.float32


class PerColumn(nn.Module):
    """A user's own loss, in several values a sample."""

    def forward(self, outputs, target):
        return (outputs - target) ** 4


class Focal(nn.Module):
    """A user's own classification loss."""

    task = "classification"

    def forward(self, outputs, y):
        cross_entropy = F.cross_entropy(outputs, y, reduction="none")
        return (1 - (-cross_entropy).exp()) ** 2 * cross_entropy


def test_users_own_losses():
    outputs, y = samples("regression", 3)
    losses = adapt_loss(PerColumn(), "regression", 3)(outputs, y)
    torch.testing.assert_close(losses, ((outputs - y) ** 4).mean(1))
    outputs, y = samples("classification", 3)
    torch.testing.assert_close(
        adapt_loss(Focal(), "classification", 3)(outputs, y), Focal()(outputs, y)
    )


def test_users_own_task_is_respected():
    with pytest.raises(ConfigError, match=r"loss=Focal is for classification.*loss=mse"):
        adapt_loss(Focal(), "regression", 3)


def test_a_plain_function_works():
    def absolute(outputs, y):
        return (outputs - y).abs()

    outputs, y = samples("regression", 1)
    losses = adapt_loss(absolute, "regression", 1)(outputs, y)
    torch.testing.assert_close(losses, (outputs - y).abs()[:, 0])


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")])
def test_a_scalar_loss_is_refused(loss):
    with pytest.raises(ConfigError, match=r"loss=cross_entropy .*reduction: none"):
        adapt_loss(loss, "classification", 3)


def test_a_loss_that_fails_says_why():
    """One of torch's tells which fit; one's own shows its line, and no other losses."""
    with pytest.raises(
        ConfigError, match=r"loss=PerColumn fails.*size.*\n.*line \d+, in forward"
    ) as own:
        adapt_loss(PerColumn(), "classification", 4)
    assert "outputs [3, 4] and targets [3] (int64)" in str(own.value)
    assert str(own.value).endswith("return (outputs - target) ** 4")
    with pytest.raises(ConfigError, match=r"loss=PairwiseDistance fails.*loss=cross_entropy"):
        adapt_loss(nn.PairwiseDistance(), "classification", 4)


def test_a_loss_of_another_length_is_refused():
    def short(outputs, y):
        return (outputs - y)[:1, 0]

    with pytest.raises(ConfigError, match=r"loss=short must return one loss a sample"):
        adapt_loss(short, "regression", 1)


def test_trying_out_draws_nothing():
    state = torch.get_rng_state()
    adapt_loss(Hinge(), "classification", 3)
    assert torch.equal(state, torch.get_rng_state())


def test_costs_little_over_the_bare_loss():
    torch.set_num_threads(1)
    bare = nn.CrossEntropyLoss(reduction="none")
    fitted = adapt_loss(bare, "classification", 10)
    outputs, y = torch.randn(100, 10), torch.randint(0, 10, (100,))

    def cost(loss, calls=200):
        start = time.thread_time()
        for _ in range(calls):
            loss(outputs, y)
        return (time.thread_time() - start) / calls

    pairs = [(cost(fitted), cost(bare)) for _ in range(15)]
    # less than the loss itself; seconds would be those of the machine
    assert min(a for a, _ in pairs) < 2 * min(b for _, b in pairs)
