"""The processes of a run, its device and its precision: one process here, several by Fabric."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from truerisk.core import shards
from truerisk.core.errors import ConfigError, first_line
from truerisk.engine.precision import PRECISIONS, DevicePrecision, choose_device

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

FEW = 4
"""Processes that may share a core, as they do where a run of several is tried."""
Forward = Callable[[Tensor], Tensor]


class Host:
    """One process on one device; subclasses span several.

    Args:
        place: the device and the precision.

    Attributes:
        rank: the number of this process.
        world_size: how many there are.
        scaler: the loss scaler of ``16-mixed``, else None.
        shards: whether each process holds a part of each parameter.
    """

    rank, world_size, shards = 0, 1, False

    def __init__(self, place: DevicePrecision) -> None:
        self.place, self.device = place, place.device
        self.scaler = place.make_scaler()
        # Straight to autograd where nothing scales the loss: a step of a small model notices.
        self.backward: Callable[..., None] = Tensor.backward
        if self.scaler is not None:
            self.backward = self.backward_scaled

    def backward_scaled(self, objective: Tensor, **options: Any) -> None:
        """Accumulate the gradient of a scaled objective.

        Args:
            objective: a scalar.
            options: arguments of ``Tensor.backward``.
        """
        assert self.scaler is not None
        self.scaler.scale(objective).backward(**options)

    def set_up_model(self, model: nn.Module) -> Forward:
        """Bring a model to the device, in place, and return what its training passes call."""
        model.to(self.device, self.place.dtype)
        return model

    def whole(self, tensor: Tensor) -> Tensor:
        """Put a tensor together that may be spread over processes."""
        return tensor

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over the processes."""
        return values

    def any(self, decision: bool) -> bool:
        """Tell whether any process has decided so."""
        return decision

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank."""
        return [value]

    def agree_on_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's running statistics: all must measure one model."""

    def try_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step with an optimizer that may never have been tried on such weights.

        Raises:
            ConfigError: the optimizer breaks off, and is a library's or has parts of parameters.
        """
        own = type(optimizer).__module__.partition(".")[0] not in ("torch", "pytorch_optimizer")
        try:
            optimizer.step()
        # whatever it runs into: operations without a rule for shards raise errors of many kinds
        except (RuntimeError, NotImplementedError, AssertionError, TypeError, ValueError) as error:
            if own and not self.shards:
                raise  # a fault of the user's class shows its lines
            name = type(optimizer).__name__
            reason = first_line(error).rstrip(".")[:120]
            if not self.shards:
                raise ConfigError(
                    f"{name} breaks off in its first step ({reason}): take another optimizer"
                ) from error
            raise ConfigError(
                f"{name} cannot step on parts of parameters, which trainer=fsdp gives each process "
                f"({reason}): use trainer=ddp, or optimizer=adamw"
            ) from error


def check_count(accelerator: str, devices: Any) -> None:
    """Refuse more processes on the CPU than it has cores; a few may share one.

    Args:
        accelerator: as ``trainer`` asks for it.
        devices: on this machine.

    Raises:
        ConfigError: there are more.
    """
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    # the cores of the machine: a queue may bind this process to one of those it grants
    cores = os.cpu_count() or 1
    if on_cpu and str(devices).isdecimal() and int(devices) > max(cores, FEW):
        raise ConfigError(
            f"trainer.devices={devices} asks for as many processes on the CPU, which has {cores} "
            f"cores: give {max(cores, FEW)} at most"
        )


class FabricHost(Host):
    """Several processes, as Lightning's Fabric starts and joins them (DDP, FSDP2).

    Args:
        trainer: the ``trainer`` node of a configuration.

    Raises:
        ConfigError: the strategy cannot be used.
    """

    def __init__(self, trainer: Mapping[str, Any]) -> None:
        from lightning.fabric import Fabric
        from lightning.fabric.plugins.environments import LightningEnvironment

        from truerisk.engine.peers import join_peers
        from truerisk.sharding import ShardingStrategy

        devices, nodes = trainer["devices"], trainer.get("num_nodes", 1)
        if peers := join_peers(trainer):
            devices = peers.open_run(devices, nodes)
        elif nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes={nodes}: one command starts processes on its own machine; "
                "srun or torchrun starts them on several, as in srun --nodes=2 "
                "--ntasks-per-node=4 truerisk train trainer=ddp trainer.num_nodes=2 "
                "trainer.devices=4"
            )
        check_count(trainer["accelerator"], devices)
        with quiet_lightning():
            self.fabric = Fabric(
                accelerator=trainer["accelerator"],
                devices=devices,
                num_nodes=nodes,
                strategy=choose_strategy(trainer),
                plugins=[LightningEnvironment()],
            )
            self.fabric.launch()
        super().__init__(DevicePrecision(self.fabric.device, trainer["precision"]))
        self.rank, self.world_size = self.fabric.global_rank, self.fabric.world_size
        self.shards = isinstance(self.fabric.strategy, ShardingStrategy)
        self.sync_batchnorm = bool(trainer.get("sync_batchnorm", False))

    def set_up_model(self, model: nn.Module) -> Forward:
        """Bring a model to the device, in place, and return what its training passes call."""
        if self.sync_batchnorm and self.world_size > 1:
            self.refuse_norms(model)
            sync_batch_norms(model)
        if self.shards:
            model.to(
                self.place.dtype
            )  # each process brings its part to the device, never the whole
        else:
            # DDP refuses a model that is not on its device, and leaves bringing it there to others
            model.to(self.device, self.place.dtype)
        return self.fabric.strategy.setup_module(model)

    def refuse_norms(self, model: nn.Module) -> None:
        """Refuse batch norms that torch cannot synchronize here.

        Raises:
            ConfigError: the model has one, and runs on CPUs.
        """
        norm = next((n for n, m in model.named_modules() if isinstance(m, _BatchNorm)), None)
        if self.device.type == "cpu" and norm is not None:
            raise ConfigError(
                f"trainer.sync_batchnorm=true: the layer {norm!r} is a batch norm, which torch "
                "normalizes over the samples of all processes on GPUs alone; on CPUs set "
                "trainer.sync_batchnorm=false (each process then normalizes over its own part of a "
                "batch), or take another normalization"
            )

    def whole(self, tensor: Tensor) -> Tensor:
        """Put a tensor together that may be spread over processes."""
        return shards.whole(tensor)

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over the processes."""
        # a copy, as the reduction writes into what it is given
        total: Any = self.fabric.all_reduce(values.clone(), reduce_op="sum")
        return total

    def any(self, decision: bool) -> bool:
        """Tell whether any process has decided so."""
        votes = torch.tensor(float(decision), device=self.device)
        return bool(self.sum(votes) > 0)

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value."""
        return self.fabric.broadcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank."""
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def agree_on_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's running statistics: all must measure one model."""
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


class TrainerHost(Host):
    """The process and the device that a user's own ``lightning.Trainer`` has chosen.

    Args:
        trainer: with its strategy set up.

    Raises:
        ConfigError: it has several processes, or a precision of its own.
    """

    def __init__(self, trainer: Trainer) -> None:
        if trainer.world_size > 1:
            raise ConfigError(
                "a Trainer of your own fits a RiskModule in one process: give it devices=1, or "
                "use truerisk train trainer=ddp"
            )
        if trainer.precision not in PRECISIONS:
            raise ConfigError(
                f"Trainer(precision={trainer.precision!r}) does not fit a RiskModule; "
                f"{', '.join(PRECISIONS)} do"
            )
        super().__init__(DevicePrecision(trainer.strategy.root_device, trainer.precision))

    def set_up_model(self, model: nn.Module) -> Forward:
        """Return the model, which the Trainer has brought to the device."""
        return model


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's announcements are kept from the screen."""
    import lightning.pytorch  # noqa: F401  (its import sets the level that is changed here)

    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def wait_for_all() -> None:
    """Wait until every process of the run has come here; nothing where there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def sync_batch_norms(model: nn.Module) -> None:
    """Let the batch norms inside a model normalise over the batch of all processes, in place."""
    for name, child in model.named_children():
        # child by child: the function returns a new module where the model is itself a norm
        setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def choose_strategy(trainer: Mapping[str, Any]) -> Any:
    """Return the strategy that Fabric takes for a configuration's.

    Raises:
        ConfigError: it starts its processes by copying this one, which holds files and threads.
    """
    from truerisk.sharding import FullyShardedStrategy

    strategy = trainer.get("strategy", "auto")
    if isinstance(strategy, FullyShardedStrategy):
        return strategy.for_fabric()
    if isinstance(strategy, str) and strategy.endswith(("_spawn", "_fork", "_notebook")):
        raise ConfigError(
            f"trainer.strategy={strategy} copies a process that is under way: use ddp, which "
            "starts the others by the same command"
        )
    return strategy


def spans_processes(trainer: Mapping[str, Any]) -> bool:
    """Tell whether a configuration asks for more than one process."""
    alone = trainer.get("devices", 1) in (1, "1") and trainer.get("num_nodes", 1) == 1
    return not alone or trainer.get("strategy", "auto") != "auto"


def choose_host(trainer: Mapping[str, Any]) -> Host:
    """Make the host of a run: this process, or those that Fabric starts beside it.

    Args:
        trainer: the ``trainer`` node of a configuration, its strategy built.

    Raises:
        ConfigError: the strategy cannot be used.
    """
    return FabricHost(trainer) if spans_processes(trainer) else Host(choose_device(trainer))
