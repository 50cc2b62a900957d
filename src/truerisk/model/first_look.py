"""A model of the user's own, looked at before it is initialized: what it takes, what it returns."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from truerisk.core import rng
from truerisk.core.deterministic import (
    eval_mode,
    frozen_modules,
    still_statistics,
    train_mode,
)
from truerisk.core.errors import FAULTS, ConfigError, describe_fault, locate_code, read_own_lines

MANY = 10_000
"""A number of a model's from which on its size is worked out before memory is asked for."""
COPIES = 2
"""Weights and gradients: what any training needs."""


def is_own(model: nn.Module) -> bool:
    """Tell whether a model is none of this package's, whose outputs are what they are to be."""
    return not type(model).__module__.startswith("truerisk.model.") or model._forward_hooks != {}


def choose_output(model: nn.Module, name: str | int) -> None:
    """Let a model that returns a tuple or a mapping return one of its entries instead.

    Args:
        model: changed in place: parameters keep their names.
        name: a key or attribute of what it returns, or a place in a tuple.
    """
    model.register_forward_hook(partial(_take_entry, name))


def _take_entry(name: str | int, _module: nn.Module, _args: Any, output: Any) -> Any:
    if isinstance(output, Tensor):  # some return more than that in training mode only
        return output
    try:
        if isinstance(output, tuple | list) and not isinstance(name, str):
            return output[name]
        if isinstance(output, Mapping):
            return output[name]
        return getattr(output, str(name))
    except (KeyError, IndexError, AttributeError):
        raise ConfigError(
            f"model.output={name}: the model returns {describe_output(output)}"
        ) from None


def describe_output(output: Any) -> str:
    """Describe what a model returned, in a few words.

    >>> describe_output((torch.zeros(2, 3), None)), describe_output({"logits": torch.zeros(2, 3)})
    ('a tuple (0: [2, 3], 1: NoneType)', 'a dict (logits: [2, 3])')
    """
    if isinstance(output, Tensor):
        return str(list(output.shape))
    entries: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(output, Mapping):
        entries = iter(output.items())
    elif isinstance(output, tuple | list):
        entries = enumerate(output)
    words = [f"{key}: {list(v.shape)}" if isinstance(v, Tensor) else f"{key}: {type(v).__name__}"
             for key, v in entries]  # fmt: skip
    named = f" ({', '.join(words)})" if words else ""
    return f"a {type(output).__name__}{named}"


def fill_lazy_layers(model: nn.Module, x: Tensor, option: str) -> None:
    """Give layers that learn their width from the first batch their weights, before initializing.

    Args:
        model: changed in place.
        x: inputs [n, *input_shape].
        option: how the model was chosen, for messages.

    Raises:
        ConfigError: the forward pass fails.
    """
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        with torch.no_grad(), eval_mode(model), telling_faults(option, x):
            model(x)


def try_forward(
    model: nn.Module, x: Tensor, needed: Sequence[int], option: str, gradient: bool = True
) -> None:
    """Call a model on a few samples, in both modes, and compare its outputs with what is needed.

    Nothing is drawn from the run's streams, and buffers are given back as they were.

    Args:
        model: in training mode; any.
        x: inputs [n, *input_shape], as training will have them.
        needed: the shape of outputs [n, …, outputs]; what lies between is not compared.
        option: how the model was chosen, for messages.
        gradient: whether it is to be trained by gradients.

    Raises:
        ConfigError: the forward pass fails, needs other arguments, writes into its inputs, or
            returns something else, or without a gradient.
    """
    _refuse_arguments(model, option)
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradient = gradient and any(p.requires_grad for p in model.parameters())
    with rng.fork_seeded(0), still_statistics(model):
        modes = {"training": train_mode(model, frozen_modules(model)), "eval": eval_mode(model)}
        for mode, context in modes.items():
            given, learns = x.clone(), gradient and mode == "training"
            watch = WriteWatch(given)
            with context, telling_faults(option, x), torch.set_grad_enabled(learns), watch:
                output = model(given)
            watch.refuse_writes(x, option)
            _check_output(output, x, needed, f"{option}, in {mode} mode,")
            if learns and not output.requires_grad:
                raise ConfigError(
                    f"{option} returns outputs without a gradient, so nothing could be learned: "
                    "forward must not .detach() them, nor compute under torch.no_grad()"
                    f"{locate_code(type(model).forward)}"
                )
    _cut_graphs(model)
    for buffer, before in kept:
        buffer.detach().copy_(before)


class WriteWatch(TorchDispatchMode):
    """Remembers which lines first wrote into a tensor inside the block.

    Args:
        watched: the tensor.
    """

    def __init__(self, watched: Tensor) -> None:
        super().__init__()
        self.watched, self.version = watched, watched._version
        self.lines: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation of torch, and look whether it writes into the tensor."""
        into = next(iter(args), None)
        if func._schema.is_mutable and isinstance(into, Tensor) and not self.lines:
            storage = self.watched.untyped_storage().data_ptr()
            if into.untyped_storage().data_ptr() == storage:
                self.lines = read_own_lines(traceback.extract_stack())[-1:]
        return func(*args, **(kwargs or {}))

    def refuse_writes(self, before: Tensor, option: str) -> None:
        """Refuse a forward pass that has changed its inputs.

        Args:
            before: what the tensor was.
            option: how the model was chosen.

        Raises:
            ConfigError: it has, or would have with other numbers.
        """
        same = torch.equal(self.watched, before) or bool(before.isnan().any())
        if same and self.watched._version == self.version:
            return
        lines = "".join(f"\n  {line}" for line in self.lines)
        raise ConfigError(
            f"{option}: forward changes its inputs in place, which are the data: "
            f"write x = x + 1 for x += 1, and no inplace=True in the first layer{lines}"
        )


def _cut_graphs(model: nn.Module) -> None:
    """Detach what modules have kept of a pass: a copy of a model takes no graph along."""
    for module in model.modules():
        for places in (vars(module), module._buffers):
            for name, value in places.items():
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    places[name] = value.detach()


def _refuse_arguments(model: nn.Module, option: str) -> None:
    """Refuse a forward pass that takes more than the inputs."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in plain]
    needed += [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 1 or (not needed and not variadic and not parameters):
        told = ", ".join(needed) or "nothing"
        raise ConfigError(
            f"{option}: forward takes ({told}), but a batch has one tensor of inputs for it: give "
            "the other arguments defaults, or cut them out of the inputs"
        )


def _check_output(output: Any, x: Tensor, needed: Sequence[int], option: str) -> None:
    wanted = ", ".join(["n", *(["…"] * (len(needed) > 2)), str(needed[-1])])
    if output is None:
        raise ConfigError(f"{option} returns None: does forward end in a return?")
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{option} returns {describe_output(output)} where a tensor [{wanted}] is needed: name "
            "the entry that is the model's output, as in +model.output=logits or +model.output=0"
        )
    shape = list(output.shape)
    if len(shape) == len(needed) and shape[0] == len(x) and shape[-1] == needed[-1]:
        return
    hint = f"its constructor is given output_size={needed[-1]}"
    if shape == [len(x)] and needed[-1] == 1:
        hint = "add .unsqueeze(-1), as [n] would be broadcast against targets [n, 1]"
    raise ConfigError(
        f"{option} returns {shape} for inputs {list(x.shape)}, where [{wanted}] is needed, "
        f"n={len(x)}: {hint}"
    )


@contextmanager
def telling_faults(option: str, x: Tensor) -> Iterator[None]:
    """Turn an error of a forward pass into one message that ends with the user's own lines.

    Args:
        option: how the model was chosen.
        x: its inputs.
    """
    try:
        yield
    except ConfigError:
        raise
    except FAULTS as error:  # a user's model may raise anything
        kind = str(x.dtype).removeprefix("torch.")
        raise ConfigError(
            f"{option}: forward fails on inputs {list(x.shape)} ({kind}): {describe_fault(error)}"
        ) from error


def refuse_too_large(
    make: Callable[[], nn.Module], numbers: Mapping[str, Any], option: str
) -> None:
    """Refuse a model whose weights and gradients are more than this machine's memory.

    Args:
        make: builds it; called where nothing is allocated.
        numbers: its configuration.
        option: how the model was chosen.

    Raises:
        ConfigError: it would not fit.
    """
    large = {k: v for k, v in numbers.items() if isinstance(v, int | list) and _largest(v) >= MANY}
    # channels double from stage to stage
    doubling = {key: numbers[key] for key in ("width", "stages") if numbers.get(key)}
    width, stages = (_largest(doubling.get(key)) for key in ("width", "stages"))
    if width * 2 ** min(stages, MANY.bit_length()) >= MANY:
        large |= doubling
    if not large:
        return
    try:
        with torch.device("meta"), rng.fork_seeded(0):
            model = make()
        count = sum(p.numel() for p in model.parameters())
        size = COPIES * sum(p.numel() * p.element_size() for p in model.parameters())
    except Exception:  # a constructor may need numbers; it then asks for its memory itself
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        named = ", ".join(f"model.{key}={value}" for key, value in large.items())
        raise ConfigError(
            f"{option} with {named} has {count:.3g} parameters: they and their gradients take "
            f"{size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        )


def _largest(value: Any) -> int:
    if not isinstance(value, list):
        value = [value]
    return max((v for v in value if isinstance(v, int)), default=0)
