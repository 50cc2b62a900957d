"""The range test on a quadratic, whose largest stable rate is 2/λmax, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import LrRange
from truerisk.diagnostics.lr_range import choose_rate, describe_choice
from truerisk.objective import Objective

QUADRATIC = [
    *("data=diabetes", "loss=mse", "model=linear", "data.batch_size=full"),
    *("optimizer=sgd", "trainer.max_epochs=1", "trainer.precision=64-true"),
]


@pytest.fixture(scope="module")
def limit(assembled):
    """2/λmax of the empirical risk of linear regression."""
    recipe = assembled(*QUADRATIC)
    split = recipe.data.train.to("cpu", torch.float64)
    (batch,) = split.batches([torch.arange(len(split))])
    objective = Objective(recipe.model.double(), recipe.surrogate)
    params = {n: p.detach() for n, p in recipe.model.named_parameters()}
    blocks = torch.func.hessian(lambda p: objective(p, batch).objective)(params)
    sizes = {n: p.numel() for n, p in params.items()}
    rows = [torch.cat([blocks[a][b].reshape(sizes[a], -1) for b in sizes], 1) for a in sizes]
    return 2 / float(torch.linalg.eigvalsh(torch.cat(rows)).max())


def values_of(result):
    rows = result.history[result.history.name.str.startswith("lr_range/")]
    assert set(rows.step) == {0}
    return dict(zip(rows.name.str.removeprefix("lr_range/"), rows.value, strict=True))


def look(run, *overrides):
    return run(*QUADRATIC, "diagnostics=[lr_range]", *overrides)


def rates(low, high, steps):
    numbers = {"low": low, "high": high, "steps": steps, "smoothing": 0}
    return [f"diagnostics.lr_range.{name}={value}" for name, value in numbers.items()]


def test_a_quadratic_diverges_right_above_its_largest_stable_rate(run, limit):
    """Rounding left some 1e-16 of the fastest mode, which has to grow again before it shows."""
    values = values_of(look(run, *rates(limit / 2, 2 * limit, 4000)))
    assert limit < values["diverged"] < 1.2 * limit
    assert values["suggested"] <= values["diverged"] / 10 < values["steepest"] < limit


def test_below_that_rate_it_does_not_diverge(run, limit):
    values = values_of(look(run, *rates(limit / 1000, 0.99 * limit, 300)))
    assert "diverged" not in values and values["suggested"] == values["steepest"]
    assert sum(name.startswith("loss/") for name in values) == 300


def test_the_rate_of_a_group_keeps_its_ratio_to_that_of_the_optimizer(run, limit):
    """Where all weights have a tenth of the rate, ten times the rate is stable."""
    rules = ["optimizer.lr=1", "param_groups.rules=[{name:'.*',lr:0.1}]"]
    values = values_of(look(run, *rules, *rates(5 * limit, 20 * limit, 4000)))
    assert 10 * limit < values["diverged"] < 12 * limit


def test_the_printed_line_and_the_figure(run, capsys, tmp_path):
    result = run("data=iris", "diagnostics=[lr_range]", "trainer.max_epochs=1")
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("lr_range: ")]
    assert "try optimizer.lr=" in line and "falls fastest" in line
    path = tmp_path / "lr_range.png"
    assert LrRange().draw(result.history, path) == path
    assert Image.open(path).convert("L").getextrema()[0] < 60  # there is something dark on it


@pytest.mark.parametrize("name", ["kfac", "sam", "hill_climbing", "adahessian"])
def test_steps_that_take_more_than_a_gradient_are_refused(name, run):
    rule = ["data=iris", f"optimizer={name}", "diagnostics=[lr_range]"]
    with pytest.raises(ConfigError, match=r"diagnostics\.lr_range: .*gradient of a mini-batch"):
        run(*rule)


def test_rates_are_read_off_the_losses():
    at = np.array([0.1, 1.0, 10.0, 100.0])
    found = {"diverged": 100.0, "steepest": 1.0, "suggested": 1.0}
    assert choose_rate(at, [4.0, 1.0, 0.9, 4.0]) == found
    assert choose_rate(at, [1.0, 1.0, 1.0]) == {"diverged": 100.0, "suggested": 10.0}
    assert choose_rate(at[:2], [1.0, 2.0]) == {}
    assert "neither falls nor diverges" in describe_choice({})
    assert math.isclose(choose_rate(at[:1], [])["suggested"], 0.01)


def test_bad_numbers_are_refused():
    for options in ({"low": 0}, {"steps": 2}, {"smoothing": 1}, {"low": 1.0, "high": 0.5}):
        with pytest.raises(ConfigError, match=r"diagnostics\.lr_range\."):
            LrRange(**options)
