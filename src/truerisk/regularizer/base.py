"""What a regularizer may do, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from truerisk.core.batch import Batch

if TYPE_CHECKING:
    from lightning.pytorch import Callback


class Forward(NamedTuple):
    """One evaluation of the model, as penalties see it.

    ``params`` maps names to the trainable parameters, ``outputs`` are the model's outputs on
    ``batch``, and ``losses_at(x)`` gives the per-sample losses [n] for other inputs ``x`` under the
    same parameters and targets.
    """

    params: Mapping[str, Tensor]
    batch: Batch
    outputs: Tensor
    losses_at: Callable[[Tensor], Tensor]


class Regularizer:
    """A brake on overfitting; a subclass overrides only the hooks it needs.

    | hook           | acts on                                                |
    |----------------|--------------------------------------------------------|
    | `edit_model`   | the architecture, once, after initializing             |
    | `edit_batch`   | every training batch                                   |
    | `penalty`      | the objective J = g + Σ λR                             |
    | `project`      | the weights, after every step                          |
    | `average`      | which weights are evaluated and kept                   |
    | `callbacks`    | the loop                                               |

    Random draws use torch's global generator, which a run seeds with ``seed.noise`` and saves in
    its checkpoints. What a regularizer carries from step to step goes through ``state_dict``.
    """

    refresh_statistics = False
    """Whether averaged weights need batch-norm statistics measured anew (Izmailov et al. 2018)."""

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Return the model to train: the same one, edited, or another around it."""
        return model

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch to train on."""
        return batch

    def penalty(self, forward: Forward) -> Tensor:
        """λR, a scalar: a pure function of its argument, with λ already in it."""
        raise NotImplementedError

    def project(self, params: Mapping[str, Tensor]) -> None:
        """Move the weights into the feasible set, in place; called without gradient tracking."""

    def start(self, steps: int, steps_per_epoch: int) -> None:
        """Learn the length of the run, in optimizer steps, before the first one."""

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take in the parameters and buffers after optimizer step number ``step`` (from 1)."""

    def averaged(self) -> Mapping[str, Tensor] | None:
        """Parameters and buffers to evaluate and keep in place of the model's own, or None."""
        return None

    def callbacks(self) -> list[Callback]:
        """Lightning callbacks that carry this regularizer out."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
