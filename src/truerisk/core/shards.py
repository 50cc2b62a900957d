"""Parameters of which every process keeps a part, put together and taken apart.

torch's functions for it take as long to import as half of torch, which a run in one process need
not wait for: they are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError


def refuse(hooks: dict[str, Any]) -> None:
    """Regularizers that look at whole parameters cannot work on shards of them.

    Raises:
        ConfigError: there is one.
    """
    for name in hooks:
        raise ConfigError(
            f"regularizer.{name} needs whole parameters, and trainer=fsdp gives each process a "
            "part of them: leave it out, or use trainer=ddp"
        )


def prepare_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Turn off kernels that torch has for whole parameters only, in place.

    Args:
        optimizer: of sharded parameters; SAM's groups are those of its base.

    Raises:
        ConfigError: it joins all parameters in one vector.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS needs whole parameters, and trainer=fsdp gives each process a part of them: "
            "use trainer=ddp"
        )
    base = getattr(optimizer, "base", optimizer)
    if isinstance(base, torch.optim.SGD):
        # Adam's fused kernel knows shards, SGD's does not (torch 2.13); same numbers to rounding
        for group in base.param_groups:
            group["fused"] = False


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its shards; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state put together on every process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True)
    )
    return {name: whole(tensor) for name, tensor in state.items()}


def load_whole_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state that every process has whole into a model that may be sharded."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    with torch.no_grad():
        set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))


def whole_module(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put the states of a module and its optimizer together from their shards.

    Args:
        module: what names of parameters count from.
        optimizer: of its parameters.

    Returns:
        Both on the first process's CPU, in one piece; nothing on the others.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(module, options=options)
    return weights, get_optimizer_state_dict(module, optimizer, options=options)


def load_whole_module(
    module: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Mapping[str, Any]
) -> None:
    """Load a checkpoint that every process has whole into a sharded module and its optimizer."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    load_whole_state(module, checkpoint["state_dict"])
    options = StateDictOptions(full_state_dict=True)
    state = checkpoint["optimizer_states"][0]
    set_optimizer_state_dict(module, optimizer, state, options=options)
