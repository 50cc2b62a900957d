"""What a regularizer may do, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from truerisk.core.batch import Batch, Forward
from truerisk.core.stop import StopRule

if TYPE_CHECKING:
    from lightning.pytorch import Callback


class Regularizer:
    """A brake on overfitting; a subclass overrides only the hooks it needs.

    | hook           | acts on                                                |
    |----------------|--------------------------------------------------------|
    | `edit_model`   | the architecture, once, after initializing             |
    | `edit_batch`   | every training batch                                   |
    | `penalty`      | the objective J = g + Σ λR                             |
    | `project`      | the weights, after every step                          |
    | `average`      | which weights are evaluated and kept                   |
    | `stop_rules`   | when the run ends                                      |
    | `callbacks`    | Lightning's loop                                       |

    Random draws use torch's global generator, which a run seeds with ``seed.noise`` and saves in
    its checkpoints. What a regularizer carries from step to step goes through ``state_dict``.
    """

    refresh_statistics = False
    """Whether averaged weights need batch-norm statistics measured anew (Izmailov et al. 2018)."""

    requires: ClassVar[tuple[str, ...]] = ()
    """What a task must have: ``samples``, ``real inputs``, ``class probabilities``."""

    needs_validation: ClassVar[bool] = False
    """Whether it compares train with validation risk, and so is left out where they are one."""

    differentiates_again: ClassVar[bool] = False
    """Whether ``penalty`` takes a gradient, so that J's is a second derivative."""

    stacks: ClassVar[tuple[str, ...]] = ()
    """The numbers, by their names in the config, that may differ between runs trained as one model
    (``hydra/launcher=vectorized``); where another one differs, the runs are trained apart. One that
    ``penalty`` uses must be an attribute of its name, read anew at each call: a tensor [] may stand
    there, so ``if self.coefficient > 0`` will not do. The other hooks are called run by run."""

    unstackable: ClassVar[str] = ""
    """What keeps a run with it from being trained with others; empty where nothing does."""

    def requirements(self) -> tuple[str, ...]:
        """Return what a task must have: ``requires``, and samples where batches are edited."""
        edits_batches = type(self).edit_batch is not Regularizer.edit_batch
        return ("samples", *self.requires) if edits_batches else self.requires

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Return the model to train: the same one, edited, or another around it."""
        return model

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch to train on."""
        return batch

    def penalty(self, forward: Forward) -> Tensor:
        """Return λR, a scalar: a pure function of its argument, with λ already in it.

        Not from ``.grad``, counters or stored tensors: J is evaluated again by line searches and
        diagnostics, differentiated, and mapped over stacked parameters.
        """
        raise NotImplementedError

    def project(self, params: Mapping[str, Tensor]) -> None:
        """Move the weights into the feasible set, in place; called without gradient tracking."""

    def start(self, steps: int, steps_per_epoch: int) -> None:
        """Prepare for a run, before its first step.

        Args:
            steps: optimizer steps of the run.
            steps_per_epoch: optimizer steps of an epoch.
        """

    def average(self, state: Mapping[str, Tensor], step: int) -> None:
        """Add the weights after an optimizer step to the average.

        Args:
            state: parameters and running statistics by name, each tie once; later steps change
                them in place.
            step: the number of the step, from 1.
        """

    def averaged(self) -> Mapping[str, Tensor] | None:
        """Return what to evaluate and keep in place of the model's own entries, or None."""
        return None

    def stop_rules(self) -> list[StopRule]:
        """Return rules that decide when the run ends."""
        return []

    def callbacks(self) -> list[Callback]:
        """Lightning callbacks that carry this regularizer out."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
