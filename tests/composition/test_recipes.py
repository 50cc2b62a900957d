"""Recipes that need a GPU: composed, checked, and run for a few steps on a little noise."""

from __future__ import annotations

import pytest
import torch

from truerisk.assemble import assemble
from truerisk.config.check import check_config
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.model import GPT

RECIPES = {"cifar10_resnet18": 11_173_962, "vit_small": 2_695_882}
"""With the numbers of their parameters."""
FEW = ["data.num_train=6", "data.val=6", "data.batch_size=3", "trainer=cpu"]


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_for_a_few_steps(name, train, complete):
    source = "data.source.path={files}/cifar10"
    given = [f"experiment={name}", source, *FEW, "trainer.max_epochs=1", "trainer.max_steps=2"]
    result = train(*given)
    complete(result)
    assert sum(p.numel() for p in result.network.parameters()) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_as_it_stands_it_asks_for_a_gpu_and_nothing_else(name):
    check_config(compose([f"experiment={name}", "trainer=cpu"]))
    cfg = compose([f"experiment={name}"])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda: torch finds none"):
            check_config(cfg)
    assert (cfg.trainer.accelerator, cfg.data.batch_size, cfg.data.val) == ("cuda", 128, 5000)
    assert cfg.monitor == "error/val" and cfg.data.source.path is None


def rates(name, files, epochs):
    """The rate of each epoch, at as many steps an epoch as ten."""
    cfg = compose([f"experiment={name}", f"data.source.path={files}/cifar10", *FEW])
    recipe = assemble(cfg)
    optimizer = recipe.optimizer(torch.nn.Linear(1, 1))
    schedule, found = recipe.schedule(optimizer, 10 * epochs), []
    for step in range(10 * epochs):
        if step % 10 == 0:
            found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rates_of_the_residual_network(files):
    """0.1, and a fifth of it after 60, 120 and 160 of 200 epochs (DeVries & Taylor 2017)."""
    expected = [0.1 * 0.2 ** sum(epoch >= drop for drop in (60, 120, 160)) for epoch in range(200)]
    assert rates("cifar10_resnet18", files, 200) == pytest.approx(expected)


def test_rates_of_the_vision_transformer(files):
    """Up to 0.001 over 10 of 100 epochs, then half a cosine (Lee, Lee & Song 2021)."""
    found = rates("vit_small", files, 100)
    assert max(found) == found[10] == pytest.approx(0.001)
    assert found[5] == pytest.approx(0.0005, rel=0.03) and found[55] == pytest.approx(0.0005)
    assert found[99] < 1e-5


SMALL_GPT = ["model.width=16", "model.depth=1", "model.heads=2", "data.source.context=8"]
SMALL_GPT += ["data.source.vocabulary=270", "data.val=2", "data.test=2", "data.batch_size=2"]


def test_the_language_model_runs_for_a_few_steps(train, complete, files):
    """On the CPU, with its precision, its accumulation and its schedule."""
    pytest.importorskip("tokenizers")
    source = [f"data.source.path={files}/texts", "data.source.column=null", "data.source.name=null"]
    given = [*source, *SMALL_GPT, "step.accumulate=2", "trainer.max_steps=3", "scheduler.warmup=1"]
    result = train("experiment=gpt_124m", *given, "trainer=cpu", "trainer.precision=bf16-mixed")
    complete(result)
    assert {"metric/perplexity/val", "metric/bits_per_byte/test"} <= set(result.summary)
    assert result.network.positions.shape == (8, 16) and result.network.last.bias is not None


def test_the_language_model_is_that_of_gpt2():
    """V·d + T·d + L(12d² + 13d) + 2d = 124,439,808 weights, half a million tokens a step."""
    cfg = compose(["experiment=gpt_124m"])
    check_config(compose(["experiment=gpt_124m", "trainer=cpu"]))
    numbers = {k: v for k, v in cfg.model.items() if not k.startswith("_")}
    source, d = cfg.data.source, cfg.model.width
    with torch.device("meta"):  # of no memory
        model = GPT((source.context,), source.vocabulary, **numbers)
    closed = (50_257 + 1024) * d + 12 * (12 * d**2 + 13 * d) + 2 * d
    assert sum(p.numel() for p in model.parameters()) == closed == 124_439_808
    assert cfg.data.batch_size * cfg.step.accumulate * source.context == 2**19
    assert cfg.trainer.max_steps * 2**19 == pytest.approx(9.9e9, rel=0.01)
    assert (cfg.trainer.precision, cfg.trainer.accelerator) == ("bf16-mixed", "cuda")
