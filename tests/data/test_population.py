"""What a distribution P is asked for, and what a user's own needs."""

from __future__ import annotations

import pytest
import torch

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data import (
    Samples,
    adding,
    copy_memory,
    gaussians,
    noisy_linear,
    parity,
    polynomial,
    rare_classes,
    teacher,
    temporal_order,
)

CLASSES = [gaussians, parity, rare_classes, temporal_order]

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


class Coin:
    """Classes that follow from the sign of x, but for one in ten."""

    def sample(self, n, generator):
        x = torch.rand(n, 1, generator=generator) * 2 - 1
        flip = torch.rand(n, generator=generator) < 0.1
        return x, ((x[:, 0] > 0) ^ flip).long()

    def bayes(self, x):
        p = torch.where(x > 0, 0.9, 0.1)
        return torch.cat([1 - p, p], 1)


class Sampler:
    """All that is known of P is how to draw from it."""

    def sample(self, n, generator):
        return Coin().sample(n, generator)


def coins(num_samples=400, seed=0):
    """A source of a user's own."""
    population = Coin()
    x, y = population.sample(num_samples, torch.Generator().manual_seed(seed))
    return Samples(x, y, "classification", population=population)


@pytest.mark.parametrize(
    "source",
    [*CLASSES, adding, copy_memory, noisy_linear, polynomial, teacher],
)
def test_ours_give_targets_as_the_task_types_them(source):
    samples = source()
    population, draw = samples.population, torch.Generator().manual_seed(1)
    x, y = population.sample(5, draw)
    assert x.shape == (5, *samples.x.shape[1:]) and y.shape == (5, *samples.y.shape[1:])
    assert (x.dtype, y.dtype) == (samples.x.dtype, samples.y.dtype)
    if samples.task != "regression":
        probabilities = population.bayes(x)
        assert probabilities.shape == (*y.shape, samples.num_outputs)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(y.shape))
    else:
        assert population.mean(x).shape == y.shape


def test_a_population_of_a_users_own_has_true_and_bayes_risk(tmp_path, monkeypatch):
    import sys
    from types import ModuleType

    from truerisk.config.compose import compose

    module = ModuleType("own_coins")
    module.coins = coins
    monkeypatch.setitem(sys.modules, "own_coins", module)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "coins.yaml").write_text(
        "# of the test\ndefaults: [_split, _self_]\n"
        "source:\n  _target_: own_coins.coins\n  _partial_: true\n"
    )
    short = ["data=coins", "model.width=4", "trainer.max_epochs=10", "risk.true_stderr=0.02"]
    cfg = compose(short, str(tmp_path / "conf"))
    run = truerisk.train(cfg, folder=tmp_path / "run")
    assert run.summary["error/bayes"].value == pytest.approx(0.1, abs=0.02)
    assert run.summary["risk/true"].value > run.summary["risk/bayes"].value > 0.3


def test_a_population_without_what_its_task_asks_for_is_refused():
    x, y = Coin().sample(20, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="Sampler has no method 'bayes'"):
        Samples(x, y, "classification", population=Sampler())
    with pytest.raises(ConfigError, match="Coin has no method 'mean'"):
        Samples(x, x, "regression", population=Coin())
