"""Fully sharded data parallelism, as Lightning is told of it: see `truerisk.core.shards`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lightning.fabric import strategies as fabric_strategies
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard


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
    owners = Counter(p for m in module.modules() for p in m.parameters(recurse=False))
    for layer in layers(module):
        # one matrix cannot be a part of two layers' shards, as a tied embedding would be
        if all(owners[p] < 2 for p in layer.parameters()):
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
