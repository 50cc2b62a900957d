"""The maximal update parametrization: what initial weights and rates become as a model widens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.rnn import RNNCellBase
from torch.optim import Optimizer

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.optimizer.needs import needs_of

STEPS = {
    "torch.SGD": "gradient",
    **dict.fromkeys(
        (
            *("torch.Adam", "torch.AdamW", "torch.NAdam", "torch.RAdam", "torch.Adamax"),
            *("torch.Adagrad", "torch.RMSprop", "pytorch_optimizer.Lion"),
        ),
        "entry",
    ),
    "truerisk.Muon": "spectrum",
}
"""What the size of an optimizer's step is that of: the gradient's, or a fixed one of each entry or
of the singular values."""
DECOUPLED = ("torch.AdamW", "pytorch_optimizer.Lion", "truerisk.Muon", "torch.SGD")
"""Optimizers whose decay of a weight is lr·λ·w a step."""
MAPPINGS = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, RNNCellBase, nn.MultiheadAttention)
"""Layers whose weights map inputs to outputs; the tables of others are rows of vectors."""
DRAWS = 8
"""Base networks that are drawn to learn how large each of its weights begins."""


class Growth(NamedTuple):
    """How many times as many inputs and outputs a weight has as at the base width.

    Attributes:
        inputs: of them.
        outputs: of them.
        is_table: whether each row is a vector of its own, as in an embedding.
    """

    inputs: float
    outputs: float
    is_table: bool = False


def complete_base(base: Mapping[str, Any], model: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return the numbers that the model has at its base width, where it has others.

    Args:
        base: as ``parametrization.base`` has them; None is what the model has.
        model: the model's own numbers.
        option: the model's name, for messages.

    Raises:
        ConfigError: the model has no such number, one is below 1, or all are its own.

    >>> complete_base({"width": 64, "heads": None}, {"width": 256, "heads": 8}, "model=gpt")
    {'width': 64, 'heads': 2}
    """
    # a number that is left open is the model's own, and so has not grown
    given = {key: value for key, value in base.items() if value is not None}
    for key, value in given.items():
        if key not in model:
            raise ConfigError(
                f"parametrization.base.{key}: {option} has no such number; {suggest(key, model)}"
            )
        # a user's own model need not check what it is built with
        for size in value if isinstance(value, list) else [value]:
            check_int(f"parametrization.base.{key}", size)
    if not given:
        raise ConfigError(
            "parametrization=mup needs the width at which the recipe was chosen: set "
            "parametrization.base.width"
        )
    for key in ("heads", "kv_heads"):
        # attention's scale is that of a head, which so stays as large
        number, width = model.get(key), model.get("width")
        if number and width and "width" in given and key not in given:
            heads, rest = divmod(number * given["width"], width)
            if heads and not rest:
                given[key] = heads
    return given


def compare_shapes(model: nn.Module, base: nn.Module) -> dict[str, Growth]:
    """Compare the fans of a model's parameters with those of the model at its base width.

    A vector, and a table of vectors such as positions, has one input for each output.

    Args:
        model: the model.
        base: the same with other sizes.

    Returns:
        By the name of each parameter.

    Raises:
        ConfigError: they do not have the same parameters, heads of attention have another size,
            or one weight is read by layers that need it in different sizes.

    >>> compare_shapes(nn.Linear(8, 2), nn.Linear(4, 2))["weight"]
    Growth(inputs=2.0, outputs=1.0, is_table=False)
    """
    sizes, found = ({read[:2]: read for read in _list_reads(net)} for net in (base, model))
    if sizes.keys() != found.keys():
        raise ConfigError(
            "parametrization.base: the model has other weights there: "
            f"{', '.join(sorted(str(name) for name, _ in sizes.keys() ^ found.keys())[:5])}; "
            "change its widths alone, not its depth"
        )
    _check_heads(model, base)
    growths: dict[str, list[Growth]] = {}
    for (name, place), read in found.items():
        before = sizes[name, place]
        growth = Growth(read.inputs / before.inputs, read.outputs / before.outputs, read.is_table)
        growths.setdefault(name, []).append(growth)
    return {name: _join_growths(name, of_reads) for name, of_reads in growths.items()}


def _join_growths(name: str, growths: list[Growth]) -> Growth:
    """Return the growth of a weight with that of each layer that reads it.

    An embedding that gives the scores too begins and moves as an embedding.
    """
    first = next((growth for growth in growths if growth.is_table), growths[0])
    scores = Growth(first.outputs, 1.0)
    if not all(growth == first or (first.is_table and growth == scores) for growth in growths):
        raise ConfigError(
            f"parametrization=mup: the weight {name} is that of two layers, which need it in "
            "different sizes: give each a weight of its own"
        )
    return first


def divide_shared_inputs(model: nn.Module, growths: Mapping[str, Growth]) -> None:
    """Let layers that give scores by an embedding's weight divide their inputs, in place.

    By the growth of their number, as the weight's entries are as large at every width.

    Source: Yang et al., "Tensor Programs V", 2022, Table 8; ``MuSharedReadout`` of their library.

    Args:
        model: the model.
        growths: see `compare_shapes`.
    """
    for read in _list_reads(model):
        growth = growths[read.name]
        if growth.is_table and not read.is_table and growth.outputs != 1:
            divide = partial(_divide_input, divisor=growth.outputs)
            read.module.register_forward_pre_hook(divide)


def _divide_input(_: nn.Module, args: tuple[Tensor], divisor: float) -> Tensor:
    return args[0] / divisor


class _Read(NamedTuple):
    """A layer's reading of a parameter, by its name and its place among those of a tied one."""

    name: str
    place: int
    module: nn.Module
    inputs: int
    outputs: int
    is_table: bool


def _list_reads(model: nn.Module) -> Iterator[_Read]:
    """List which layer reads each parameter, with how many inputs and outputs."""
    names: dict[int, tuple[str, int]] = {}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, nn.UninitializedParameter):
                raise ConfigError(
                    f"parametrization=mup: {path}.{key} learns its size from data: give it one"
                )
            name, place = names.get(id(parameter), (f"{path}.{key}".removeprefix("."), -1))
            # under the first name alone, as the optimizer knows it
            names[id(parameter)] = name, place + 1
            is_table = parameter.ndim > 1 and not isinstance(module, MAPPINGS)
            fans = _count_fans(module, parameter)
            yield _Read(name, place + 1, module, *fans, is_table)


def _count_fans(module: nn.Module, parameter: Tensor) -> tuple[int, int]:
    if parameter.ndim < 2 or not isinstance(module, MAPPINGS):
        # a table of vectors, as embeddings are, has its outputs last
        return 1, parameter.shape[-1] if parameter.ndim else 1
    # a kernel's places are inputs too; they do not grow, and cancel
    inputs, outputs = math.prod(parameter.shape[1:]), parameter.shape[0]
    if isinstance(module, _ConvTransposeNd):
        return outputs, inputs
    return inputs, outputs


def _check_heads(model: nn.Module, base: nn.Module) -> None:
    for key in ("head_dim", "head_size"):
        sizes = [
            [getattr(m, key) for m in net.modules() if isinstance(getattr(m, key, None), int)]
            for net in (model, base)
        ]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"parametrization=mup: heads of attention have {sizes[0][0]} features, and "
                f"{sizes[1][0]} at the base width: let model.heads grow with model.width, or set "
                "parametrization.base.heads, for their products are scaled by that number alone"
            )


def measure_sizes(draw: Callable[[], nn.Module]) -> dict[str, float]:
    """Measure the root mean square with which each parameter begins.

    Args:
        draw: makes the network anew, with other random weights.
    """
    squares: dict[str, float] = {}
    # squares are averaged, of which few weights have few
    for _ in range(DRAWS):
        for name, parameter in draw().named_parameters():
            square = parameter.detach().double().square().mean().item()
            squares[name] = squares.get(name, 0.0) + square / DRAWS
    return {name: math.sqrt(square) for name, square in squares.items()}


@torch.no_grad()
def rescale_weights(
    model: nn.Module, growths: Mapping[str, Growth], sizes: Mapping[str, float]
) -> None:
    """Give weights that have grown the size that carries over, in place.

    The root mean square becomes σ·√(1/rᵢ)·min(1, √(rₒ/rᵢ)) for σ at the base width, with rᵢ and
    rₒ times as many inputs and outputs: the spectral norm of each matrix is then of the order of
    √(outputs/inputs), whatever initializer has drawn it.

    Source: Yang, Simon & Bernstein, "A Spectral Condition for Feature Learning", 2023, §4; for
    Table 3 of Yang et al., "Tensor Programs V", 2022.

    Args:
        model: freshly initialized.
        growths: see `compare_shapes`.
        sizes: σ of each parameter, see `measure_sizes`.
    """
    if all(growth[:2] == (1, 1) for growth in growths.values()):
        return  # the base itself, to the last bit
    for name, parameter in model.named_parameters():
        inputs, outputs, _ = growths[name]
        # what has been drawn, rather than its scheme's law, which a user's own may not state
        now = parameter.double().square().mean().sqrt().item()
        if now and sizes[name]:
            wanted = sizes[name] * math.sqrt(1 / inputs) * min(1.0, math.sqrt(outputs / inputs))
            parameter.mul_(wanted / now)


def name_optimizer(factory: Callable[..., Optimizer]) -> str:
    """Name an optimizer by its library and class, as in ``torch.AdamW``.

    Args:
        factory: its class, or a partial of it.
    """
    target: Any = factory
    while isinstance(target, partial):
        target = target.func
    return f"{target.__module__.partition('.')[0]}.{getattr(target, '__name__', '')}"


def check_optimizer(factory: Callable[..., Optimizer]) -> None:
    """Refuse an optimizer of whose step it is not known how it should grow.

    Args:
        factory: its class, or a partial of it.

    Raises:
        ConfigError: with those that are known.
    """
    if name_optimizer(factory) not in STEPS or needs_of(factory).closure:
        known = ", ".join(sorted(name.rpartition(".")[2] for name in STEPS))
        raise ConfigError(
            f"parametrization=mup has no rule for the steps of {name_optimizer(factory)}; it has "
            f"for {known}: take one of them, or parametrization=standard"
        )


def scale_rates(
    groups: Sequence[dict[str, Any]],
    growths: Mapping[str, Growth],
    factory: Callable[..., Optimizer],
) -> list[dict[str, Any]]:
    """Divide groups by the rate that each parameter has at its size.

    With rᵢ and rₒ times as many inputs and outputs as at the base width, the rate is multiplied by
    rₒ/rᵢ where a step is as large as the gradient (SGD), by 1/rᵢ where each entry moves by as much
    whatever its gradient (Adam), and by √(rₒ/rᵢ) where the singular values do (Muon; less what its
    own factor does). Decoupled weight decay is divided by it: a step's share of decay stays.

    Source: Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
    Hyperparameter Transfer", 2022, Table 3; Yang, Simon & Bernstein 2023, §4, for Muon.

    Args:
        groups: as `truerisk.optimizer.parameter_groups` makes them.
        growths: see `compare_shapes`.
        factory: the optimizer's class, or a partial of it.

    Returns:
        The groups, in their order, none of them empty.

    Raises:
        ConfigError: a regularizer has replaced a weight by another, or weights decay by way of
            the gradient.
    """
    # a matrix, as Muon takes no other
    defaults = factory([nn.Parameter(torch.zeros(1, 1))]).defaults
    divided: list[dict[str, Any]] = []
    for group in groups:
        parts: dict[tuple[str, float], dict[str, Any]] = {}
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if name not in growths:
                raise ConfigError(
                    f"parametrization=mup does not know the size of {name}, which a regularizer "
                    "has made of a weight of the model: leave that regularizer out"
                )
            key, factor = _find_factor(growths[name], parameter, {**defaults, **group}, factory)
            # few groups rather than one a parameter, for fused steps
            part = parts.setdefault((key, factor), {**group, "params": [], "param_names": []})
            part["params"].append(parameter)
            part["param_names"].append(name)
        for (key, factor), part in parts.items():
            # untouched at the base width, where an optimizer's own number is left to it
            if factor != 1:
                numbers = {**defaults, **group}
                part[key] = numbers[key] * factor
                if numbers.get("weight_decay"):
                    part["weight_decay"] = _keep_decay(numbers, factor, factory)
        divided += parts.values()
    return divided


def _find_factor(
    growth: Growth,
    parameter: Tensor,
    numbers: Mapping[str, Any],
    factory: Callable[..., Optimizer],
) -> tuple[str, float]:
    """Return which number of a group is the rate of a parameter, and its factor."""
    kind = STEPS[name_optimizer(factory)]
    inputs, outputs, is_table = growth
    if kind == "gradient":
        return "lr", outputs / inputs
    if kind == "entry":
        return "lr", 1 / inputs
    # those that Muon leaves to AdamW have another rate beside its own
    if parameter.ndim != 2 or not numbers["muon"]:
        return "adamw_lr", 1 / inputs
    if is_table:
        # orthogonal rows have the length 1, or as torch multiplies them one that grows by itself
        grows = numbers["adjust_lr_fn"] == "match_rms_adamw"
        return "lr", 1.0 if grows else math.sqrt(outputs)
    rows, columns = parameter.shape
    before = rows / outputs, columns / inputs  # at the base width
    # what torch multiplies the step by itself
    if numbers["adjust_lr_fn"] == "match_rms_adamw":
        own = math.sqrt(max(rows, columns) / max(before))
    else:
        own = math.sqrt(max(1, rows / columns) / max(1, before[0] / before[1]))
    return "lr", math.sqrt(outputs / inputs) / own


def _keep_decay(
    numbers: Mapping[str, Any], factor: float, factory: Callable[..., Optimizer]
) -> float:
    if name_optimizer(factory) not in DECOUPLED and not numbers.get("decoupled_weight_decay"):
        raise ConfigError(
            f"parametrization=mup: weight_decay of {name_optimizer(factory)} is a part of "
            "the gradient, whose share of a step changes with the width: set it to 0 and take "
            "optimizer=adamw, or regularizer=l2"
        )
    return float(numbers["weight_decay"]) / factor
