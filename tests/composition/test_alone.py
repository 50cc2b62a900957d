"""Every option of every group by itself, with the default recipe or the nearest that it fits.

An option that is new in ``conf/`` is covered by itself.
"""

from __future__ import annotations

import pytest
import torch

from truerisk.config.check import check_config
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

NEAREST = {
    ("data", "adding"): ["loss=mse"],
    ("data", "diabetes"): ["loss=mse"],
    ("data", "teacher"): ["loss=mse"],
    ("data", "noisy_linear"): ["loss=mse"],
    ("data", "polynomial"): ["loss=mse"],
    ("data", "table"): ["loss=mse"],
    ("data", "arrays"): ["loss=mse"],
    ("model", "cnn"): ["data=digits"],
    ("experiment", "cifar10_resnet18"): ["data=cifar10", "model=resnet18", "trainer=cpu"],
    ("experiment", "gpt_124m"): [
        *("data=text", "model=gpt", "trainer=cpu", "data.source.column=null"),
        *("data.source.name=null", "data.source.tokenizer=characters", "data.val=4", "data.test=4"),
    ],
    ("experiment", "vit_small"): ["data=cifar10", "model=vit", "trainer=cpu"],
    ("model", "vit"): ["data=digits"],
    ("regularizer", "augment"): ["data=digits"],
    ("data", "text"): ["model=gpt"],
    ("data", "copy_memory"): ["model=gpt"],
    ("experiment", "gpt_characters"): ["data=text", "model=gpt"],
    ("model", "gpt"): ["data=text"],
    ("metric", "bits_per_byte"): ["data=text", "model=gpt"],
    ("param_groups", "muon_hidden"): ["data=text", "model=gpt", "optimizer=muon"],
    ("loss", "mse"): ["data=diabetes"],
    ("loss", "mae"): ["data=diabetes"],
    ("loss", "huber"): ["data=diabetes"],
    ("loss", "poisson"): ["data=diabetes"],
    ("loss", "quantile"): ["data=diabetes"],
    ("initializer", "identity_rnn"): ["model=rnn", "model.activation=relu"],
    ("initializer", "orthogonal_rnn"): ["model=rnn"],
    ("diagnostics", "attention"): ["model=transformer", "model.width=4"],
    ("diagnostics", "recurrence"): ["model=rnn"],
    **{
        ("metric", name): ["data=diabetes", "loss=mse"]
        for name in ("mae", "rmse", "r2", "mape", "spearman")
    },
    ("metric", "torchmetrics"): ["metric.torchmetrics.metric=JaccardIndex"],
    ("logger", "wandb"): ["logger.wandb.mode=offline"],
    ("logger", "mlflow"): ["logger.mlflow.tracking_uri=sqlite:///{files}/mlflow.db"],
}
"""The recipe nearest to the default one that an option fits."""

ELSEWHERE = {"ddp", "fsdp"}
"""Trainers of several processes, which other tests run."""


def refusal(group, option):
    """Why an option cannot work on this machine, if it cannot."""
    if group != "trainer":
        return None
    missing = {"gpu": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    return "torch finds none on this machine" if missing.get(option) else None


def test_every_option_with_the_nearest_recipe(group, option, train, chosen, sizes, complete):
    if group == "logger":
        pytest.importorskip({"csv": "csv"}.get(option, option))
    near = NEAREST.get((group, option), [])
    used = {text.partition("=")[0]: text.partition("=")[2] for text in near if "." not in text}
    recipe = {"data": "mnist1d", "model": "mlp"} | used | {group: option}
    picks = [text for g, o in recipe.items() for text in chosen(g, o)]
    overrides = [*picks, *sizes, *(text for text in near if "." in text)]
    if why := refusal(group, option):
        with pytest.raises(ConfigError, match=why):
            train(*overrides)
    elif option in ELSEWHERE:
        check_config(compose([*overrides, "trainer.accelerator=cpu", "trainer.devices=2"]))
    else:
        complete(train(*overrides))
