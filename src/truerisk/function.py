"""Runs without data: a test function is minimised over its own weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from hydra.utils import get_object
from omegaconf import DictConfig

from truerisk.core.errors import ConfigError
from truerisk.data import NoData
from truerisk.logger.label import option_name
from truerisk.model import Function
from truerisk.regularizer import Dropout, EarlyStopping, Entropy, InputGradient, SpectralNorm
from truerisk.regularizer.base import Regularizer

DEFAULT = {"_target_": "truerisk.initializer.Initializer", "bias": None, "gain": 1.0}
"""The initializer that leaves a model as it was built."""

OF_SAMPLES = (Dropout, Entropy, InputGradient, SpectralNorm)
"""Regularizers that make nothing of a bare vector of weights."""


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


def acting(regularizers: Mapping[str, Regularizer]) -> dict[str, Regularizer]:
    """The regularizers that act on a function of w: all but early stopping, which needs samples.

    Its training and validation risk are one number, so there is nothing to stop early for; and an
    optimizer that overshoots must not be stopped at the top of a hill.

    Raises:
        ConfigError: a regularizer acts on samples or layers, or leaves out vectors.
    """
    kept = {k: r for k, r in regularizers.items() if not isinstance(r, EarlyStopping)}
    for name, regularizer in kept.items():
        edits = type(regularizer).edit_batch is not Regularizer.edit_batch
        if edits or isinstance(regularizer, OF_SAMPLES):
            raise ConfigError(
                f"regularizer={name} acts on samples or layers, and a test function has neither: "
                f"leave {name} out"
            )
        groups = getattr(regularizer, "groups", None)
        if groups is not None and not groups({"w": torch.zeros(1)}):
            raise ConfigError(
                f"regularizer={name} leaves out vectors, as which it takes biases, and a test "
                f"function has only one, w: set regularizer.{name}.rules=[]"
            )
    return kept
