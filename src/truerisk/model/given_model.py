"""A model given from Python as an object."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from truerisk.core.deterministic import eval_mode
from truerisk.core.errors import ConfigError
from truerisk.core.python_objects import hash_arrays, take_object


class GivenModel(NamedTuple):
    """A module as it was given.

    Args:
        module: with the weights that a run begins with.
        class_path: where its class is defined.
        digest: of its parameters and buffers.
    """

    module: nn.Module
    class_path: str
    digest: str

    def describe(self) -> dict[str, object]:
        """Return the node that stands for it in a configuration."""
        return {
            "_target_": "truerisk.model.given_model.given_model",
            "class_path": self.class_path,
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "digest": self.digest,
        }


def read_model(module: object) -> GivenModel:
    """Look at a module that was given from Python.

    Args:
        module: inputs [n, …] to outputs [n, …].

    Raises:
        ConfigError: it is no plain module.
    """
    kind = type(module)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model is a {kind.__name__}: give a torch.nn.Module, or model=NAME")
    refuse_lightning(module)
    lazy = [name for name, p in module.named_parameters() if is_lazy(p)]
    if lazy:
        raise ConfigError(
            f"model: {lazy[0]} of {kind.__name__} has no weights yet: call it once on a batch of "
            "inputs"
        )
    state = [tensor.detach().cpu().float().numpy() for tensor in module.state_dict().values()]
    return GivenModel(module, f"{kind.__module__}.{kind.__qualname__}", hash_arrays(state))


def refuse_lightning(module: nn.Module) -> None:
    """Refuse a LightningModule in the place of a model.

    Args:
        module: any.

    Raises:
        ConfigError: its own ``training_step`` would be ignored.
    """
    # by name, as importing Lightning to ask takes a second
    if any(base.__name__ == "LightningModule" for base in type(module).__mro__):
        raise ConfigError(
            f"model: {type(module).__name__} is a LightningModule, whose training_step would be "
            "ignored: give the network inside it, or fit it by a Trainer of your own"
        )


def given_model(
    class_path: str,
    parameters: int,
    digest: str,
    input_shape: tuple[int, ...] = (),
    output_size: int = 1,
) -> nn.Module:
    """Return a copy of the module that a run was given.

    Args:
        class_path: where its class is defined.
        parameters: how many it has.
        digest: of its parameters and buffers.
        input_shape: of one sample.
        output_size: outputs that the loss takes for a sample.

    Raises:
        ConfigError: it was not given again, or has another number of outputs.
    """
    module = copy.deepcopy(take_object("model", digest, f"a {class_path}").module)
    with torch.no_grad(), eval_mode(module):
        try:
            outputs = module(torch.zeros(2, *input_shape))
        except (RuntimeError, TypeError, IndexError):  # it takes whole numbers, or says so itself
            outputs = None
    if outputs is not None and outputs.shape[-1] != output_size:
        raise ConfigError(
            f"model: {class_path} gives outputs {list(outputs.shape)} for inputs "
            f"{[2, *input_shape]}, and the loss takes {output_size} a sample"
        )
    # one that was put away in eval mode; frozen modules inside another stay as they are
    return module if module.training else module.train()
