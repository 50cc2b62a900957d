"""Fully sharded data parallelism: every process keeps a part of each parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.fabric import strategies as fabric_strategies
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

from truerisk.core.errors import ConfigError

WHOLE = StateDictOptions(full_state_dict=True)


class FullyShardedStrategy(ModelParallelStrategy):
    """Lightning's model-parallel strategy with all processes sharing the data (FSDP2).

    Source: Zhao et al. 2023, "PyTorch FSDP"; gradients are those of one process over the whole
    batch, to rounding.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)
        self.options = options

    def setup_environment(self) -> None:
        """Let the data dimension of the mesh span every process."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def for_fabric(self) -> ShardingStrategy:
        """Return the same strategy as Fabric takes it."""
        return ShardingStrategy(**self.options)


class ShardingStrategy(fabric_strategies.ModelParallelStrategy):
    """Fabric's model-parallel strategy with all processes sharing the data (FSDP2)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            shard_over_mesh, tensor_parallel_size=1, save_distributed_checkpoint=False, **options
        )

    def setup_environment(self) -> None:
        """Let the data dimension of the mesh span every process."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard_over_mesh(module: nn.Module, mesh: Any) -> nn.Module:
    """Shard a model over the data dimension of a device mesh, in place."""
    shard(module, mesh["data_parallel"])
    return module


def shard(module: nn.Module, mesh: Any) -> None:
    """Shard a model's parameters over the processes of ``mesh``, layer by layer."""
    for layer in layers(module):
        fully_shard(layer, mesh=mesh)
    # the root last, for what no layer inside it has taken
    fully_shard(module, mesh=mesh)


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that own parameters: those whose forward pass is sure to be called.

    A container may be walked through instead, and attention reads the weights of its projection.
    """
    for child in module.children():
        own = next(child.parameters(recurse=False), None) is not None
        if own or isinstance(child, nn.MultiheadAttention):
            yield child
        else:
            yield from layers(child)


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
    state: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    return {name: whole(tensor) for name, tensor in state.items()}


def load_whole_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state that every process has whole into a model that may be sharded."""
    with torch.no_grad():
        set_model_state_dict(model, dict(state), options=WHOLE)


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
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(module, options=options)
    return weights, get_optimizer_state_dict(module, optimizer, options=options)


def load_whole_module(
    module: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Mapping[str, Any]
) -> None:
    """Load a checkpoint that every process has whole into a sharded module and its optimizer."""
    set_model_state_dict(module, dict(checkpoint["state_dict"]), options=WHOLE)
    state = checkpoint["optimizer_states"][0]
    set_optimizer_state_dict(module, optimizer, state, options=WHOLE)
