"""A sweep of W&B's, whose agents run ``truerisk train``, from our override syntax."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode

from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError, suggest
from truerisk.sweeps.sweeper.axis import (
    DISTRIBUTION,
    format_axis,
    interval_bounds,
    list_values,
    parse_distribution,
    quote_distributions,
    split_axes,
)

METHODS = ("bayes", "grid", "random")
LOGARITHMIC = ("loguniform", "reciprocal")
"""What scipy calls the distribution whose logarithm is uniform."""


def write_sweep(
    overrides: Sequence[str],
    method: str | None = None,
    metric: str = "risk/val",
    goal: str = "minimize",
    config_dir: str | None = None,
) -> str:
    """Write the YAML that ``wandb sweep`` takes.

    What is swept becomes W&B's parameters; all else stands in the command of its agents, with
    ``logger=[wandb]`` unless a logger is chosen.

    Args:
        overrides: as of ``truerisk train -m``.
        method: bayes, grid or random; None is a grid where there are lists of values alone.
        metric: what is optimized, by its name in W&B's summary.
        goal: minimize or maximize.
        config_dir: a folder of your own options.

    Raises:
        ConfigError: they cannot be composed, sweep nothing, or ask for what W&B cannot draw.
    """
    import yaml

    expanded = quote_distributions(expand_short_forms(overrides))
    for text in expanded:
        if text.lstrip("+").startswith("hydra"):
            raise ConfigError(f"{text}: W&B chooses the points, and its agents run them")
    with hydra_session():
        loader = ConfigLoader(config_dir, None)
        parsed = loader.read_overrides(expanded)
        axes = split_axes(parsed, ())
        parameters = {key: describe_axis(override) for key, override in axes.searched.items()}
        # one of the points, so that what is wrong is told now
        point = {k: pick_value(o, parameters[k]) for k, o in axes.searched.items()}
        first = [f"{key}={value}" for key, value in (axes.fixed | point).items()]
        loader.load_configuration(PRIMARY, first, RunMode.RUN)
    if not parameters:
        raise ConfigError("nothing is swept: give an axis, as in optimizer.lr=0.001,0.01")
    lists = all("values" in parameter for parameter in parameters.values())
    method = method or ("grid" if lists else "bayes")
    if method not in METHODS:
        raise ConfigError(f"--method {method}: {suggest(method, METHODS)}")
    if method == "grid" and not lists:
        raise ConfigError("--method grid takes lists of values, and an axis here is an interval")
    fixed = [f"{key}={value}" for key, value in axes.fixed.items()]
    if not any(key.partition(".")[0].lstrip("+") == "logger" for key in axes.fixed):
        fixed.append("logger=[wandb]")
    options = [] if config_dir is None else [f"--config-dir={Path(config_dir).absolute()}"]
    sweep = {
        "program": "truerisk",
        "method": method,
        "metric": {"name": metric, "goal": goal},
        "parameters": parameters,
        "command": ["${env}", "truerisk", "train", *options, *fixed, "${args}"],
    }
    return str(yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True))


def describe_axis(override: Override) -> dict[str, Any]:
    """Write an axis as a parameter of W&B's.

    Args:
        override: several values, an interval or a distribution.

    Raises:
        ConfigError: W&B has no such distribution.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = interval_bounds(override)
        whole = isinstance(low, int) and isinstance(high, int)
        ends = {"min": low, "max": high}
        if "log" not in value.tags:
            return {"distribution": "int_uniform" if whole else "uniform", **ends}
        if whole:
            return {"distribution": "q_log_uniform_values", "q": 1, **ends}
        return {"distribution": "log_uniform_values", **ends}
    if DISTRIBUTION not in (getattr(value, "tags", None) or ()):
        return {"values": [read_value(text) for text in list_values(override)]}
    name, numbers = parse_distribution(override)
    if name in LOGARITHMIC and len(numbers) == 2:
        return {"distribution": "log_uniform_values", "min": numbers[0], "max": numbers[1]}
    if name == "norm" and len(numbers) == 2:
        return {"distribution": "normal", "mu": numbers[0], "sigma": numbers[1]}
    if name == "uniform" and len(numbers) == 2:  # scipy's numbers are the start and the width
        return {"distribution": "uniform", "min": numbers[0], "max": sum(numbers)}
    if name == "randint" and len(numbers) == 2:  # scipy leaves out the upper end
        return {"distribution": "int_uniform", "min": numbers[0], "max": numbers[1] - 1}
    raise ConfigError(
        f"{format_axis(override)}: W&B draws from interval(a,b), tag(log,interval(a,b)), "
        "loguniform(a,b), uniform(a,width), randint(a,b), norm(mean,deviation) and lists of values"
    )


def pick_value(override: Override, parameter: dict[str, Any]) -> str:
    """Return a value of an axis, as text.

    Args:
        override: the axis.
        parameter: what W&B is told of it.
    """
    if "values" in parameter:
        return list_values(override)[0]
    return str(parameter.get("min", parameter.get("mu")))


def read_value(text: str) -> Any:
    """Read a value as YAML is to hold it.

    >>> [read_value(text) for text in ("3", "1e-3", "true", "null", "[l2,dropout]")]
    [3, 0.001, True, None, '[l2,dropout]']
    """
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
