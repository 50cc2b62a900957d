"""Combinations of parts that cannot be right, refused with what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from truerisk.config.options import ClipOptions
from truerisk.config.targets import LIGHTER
from truerisk.core.errors import ConfigError
from truerisk.data import NoData
from truerisk.logger.label import option_name
from truerisk.model import Function
from truerisk.optimizer import Needs, needs_of
from truerisk.regularizer.base import Regularizer

DEFAULT_INITIALIZER = {"_target_": "truerisk.initializer.Initializer", "bias": None, "gain": 1.0}
"""The initializer that leaves a model as it was built."""


def check_combinations(config: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be right, whatever the data are.

    Raises:
        ConfigError: with what to change.
    """
    check_function(config)
    needs: Needs = needs_of(get_object(config["optimizer"]["_target_"]))
    name = config["optimizer"]["_target_"].rpartition(".")[2]
    precision = config["trainer"]["precision"]
    check_regularizers(config, needs, name)
    if needs.full_batch and config["data"]["batch_size"] != "full":
        raise ConfigError(
            f"{name} descends on the whole training set: set data.batch_size=full "
            "(or take optimizer=sgd for mini-batches)"
        )
    if not needs.clip and ClipOptions(**config["step"]["clip"]) != ClipOptions():
        raise ConfigError(
            f"{name} relies on the gradient of J as it is, which clipping would change: "
            "leave out step.clip.norm and step.clip.value"
        )
    if needs.curvature and precision not in ("32-true", "64-true"):
        raise ConfigError(
            f"{name} compares small changes of J with those its curvature predicts, which "
            f"trainer.precision={precision} rounds away: use 32-true or 64-true"
        )
    if config["compile"] and (needs.curvature or needs.create_graph):
        raise ConfigError(
            f"{name} differentiates twice, and torch.compile only once: set compile=false"
        )
    if config.get("recompute") and (needs.curvature or needs.create_graph):
        raise ConfigError(
            f"{name} differentiates twice, and what is recomputed only once: set recompute=false"
        )
    if config.get("recompute") and config["compile"]:
        raise ConfigError(
            "torch.compile chooses by itself what is kept and what is recomputed: set "
            "recompute=false, or compile=false"
        )
    if not needs.scaler and precision == "16-mixed":
        raise ConfigError(
            f"{name} cannot work under loss scaling (trainer.precision=16-mixed); "
            "use bf16-mixed or 32-true"
        )


def check_regularizers(config: Mapping[str, Any], needs: Needs, name: str) -> None:
    """Refuse regularizers that an optimizer or torch.compile cannot be right with.

    Args:
        config: the configuration, as plain containers or OmegaConf's.
        needs: of the optimizer.
        name: the optimizer's.

    Raises:
        ConfigError: there is one.
    """
    for key, node in config["regularizer"].items():
        kind = get_object(node["_target_"])
        moves = getattr(kind, "project", Regularizer.project) is not Regularizer.project
        if moves and not needs.projection:
            raise ConfigError(
                f"regularizer={key} moves the weights after each step, and {name} chooses its "
                "steps by J as it is without that, so that it would end beside the minimum, or "
                "nowhere: take a first-order optimizer (optimizer=gd, momentum, adam), or "
                "regularizer=l2"
            )
        if config["compile"] and getattr(kind, "differentiates_again", False):
            raise ConfigError(
                f"regularizer={key} has a gradient in J, which is differentiated twice, and "
                "torch.compile only once: set compile=false"
            )
        if config.get("recompute") and getattr(kind, "differentiates_again", False):
            raise ConfigError(
                f"regularizer={key} has a gradient in J, which is differentiated twice, and what "
                "is recomputed only once: set recompute=false"
            )


def check_function(config: Mapping[str, Any]) -> None:
    """Refuse a test function with data, no data without one, and an initializer of layers for it.

    Raises:
        ConfigError: the configuration has one of these.
    """
    model = option_name(config, "model")
    is_function = _names_class(config["model"], Function)
    has_no_data = _names_class(config["data"], NoData)
    if is_function and not has_no_data:
        raise ConfigError(
            f"model={model} is a function of its weights alone and reads no samples: add data=none"
        )
    if has_no_data and not is_function:
        raise ConfigError(
            f"model={model} needs samples, and data=none has none: choose a test function, such as "
            "model=rosenbrock (truerisk parts model lists them), or some data"
        )
    if has_no_data and config["initializer"] != DEFAULT_INITIALIZER:
        initializer = option_name(config, "initializer")
        raise ConfigError(
            f"initializer={initializer} sets the weights of layers, and a test function has none: "
            "leave initializer=default as it is and set model.start"
        )


def check_scores(surrogate: Any, regularizers: Mapping[str, Regularizer]) -> None:
    """Refuse what reads outputs as scores of classes beside a loss that has other outputs.

    Args:
        surrogate: the loss.
        regularizers: by name.

    Raises:
        ConfigError: there is such a regularizer.
    """
    if not hasattr(surrogate.loss, "log_probabilities"):
        return
    for name, regularizer in regularizers.items():
        if "class probabilities" in regularizer.requirements():
            raise ConfigError(
                f"regularizer={name} reads a score a class, and the outputs of this loss are not "
                f"those: leave {name} out, or take loss=cross_entropy"
            )


def check_averages(regularizers: Mapping[str, Regularizer]) -> None:
    """Refuse two averages of the weights, as only one can be measured and kept.

    Raises:
        ConfigError: there are two.
    """
    # by what its class overrides, as an average returns None until it has begun
    names = [n for n, r in regularizers.items() if type(r).averaged is not Regularizer.averaged]
    if len(names) > 1:
        raise ConfigError(
            f"{' and '.join(names)} each average the weights, and only one average can be "
            "measured: leave one of them out of `regularizer`"
        )


def _names_class(node: Mapping[str, Any], kind: type) -> bool:
    target = get_object(LIGHTER.get(node["_target_"], node["_target_"]))
    return isinstance(target, type) and issubclass(target, kind)
