"""Runs without data: a test function is minimised over its own weights."""

from __future__ import annotations

import torch
from hydra.utils import get_object
from omegaconf import DictConfig

from truerisk.core.errors import ConfigError
from truerisk.data import NoData
from truerisk.logger.label import option_name
from truerisk.model import Function

DEFAULT = {"_target_": "truerisk.initializer.Initializer", "bias": None, "gain": 1.0}
"""The initializer that leaves a model as it was built."""


def refuse(cfg: DictConfig) -> None:
    """A function with data, no data without a function, and what acts on neither.

    Raises:
        ConfigError: the configuration has one of these.
    """
    model, function, nothing = (
        option_name(cfg, "model"),
        _is(cfg.model, Function),
        _is(cfg.data, NoData),
    )
    if function and not nothing:
        raise ConfigError(
            f"model={model} is a function of its weights alone and reads no samples: add data=none"
        )
    if nothing and not function:
        raise ConfigError(
            f"model={model} needs samples, and data=none has none: choose a test function, such as "
            "model=rosenbrock (truerisk parts model lists them), or some data"
        )
    if nothing and cfg.initializer != DEFAULT:
        raise ConfigError(
            f"initializer={option_name(cfg, 'initializer')} sets the weights of layers, and a test "
            "function has none: leave initializer=default as it is and set model.start"
        )


def _is(node: DictConfig, kind: type) -> bool:
    target = get_object(node._target_)
    return isinstance(target, type) and issubclass(target, kind)


def dtype(cfg: DictConfig) -> torch.dtype:
    """The type a function's numbers are made in, so that −1.2 in double precision is no float32."""
    double = cfg.trainer.get("precision") == "64-true"
    return torch.float64 if double else torch.get_default_dtype()
