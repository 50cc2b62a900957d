"""The two trainings that are compared, as truerisk's overrides and as plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from truerisk.data import Samples

PATIENT = ("regularizer=[early_stopping]", "regularizer.early_stopping.patience=100000")
"""Early stopping that watches, and does not end the run."""


@dataclass(frozen=True)
class Task:
    """A multilayer perceptron with layers of the sizes ``widths`` on ``samples()``.

    The bare loop trains on the first ``num_train`` samples, and the template's style validates on
    the next ``num_val``; truerisk holds out as many.
    """

    name: str
    widths: tuple[int, ...]
    batch_norm: bool
    batch_size: int
    num_train: int
    num_val: int
    epochs: int
    samples: Callable[[], tuple[Tensor, Tensor]]
    overrides: tuple[str, ...]

    def model(self) -> nn.Sequential:
        """The model of the bare loop and of the template's style; truerisk builds the same."""
        from torch import nn

        layers: list[nn.Module] = []
        for a, b in zip(self.widths[:-2], self.widths[1:-1], strict=True):
            layers.append(nn.Linear(a, b, bias=not self.batch_norm))
            layers += [nn.BatchNorm1d(b)] if self.batch_norm else []
            layers.append(nn.ReLU())
        return nn.Sequential(*layers, nn.Linear(*self.widths[-2:]))


@cache
def mnist1d() -> tuple[Tensor, Tensor]:
    """MNIST-1D's training samples, [4000, 40]."""
    import torch
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    return torch.tensor(data["x"], dtype=torch.float32), torch.tensor(data["y"]).long()


@cache
def mnist_sized() -> tuple[Tensor, Tensor]:
    """70,000 samples like MNIST's in shape, [70000, 784]; the classes are linear in them."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(70_000, 784, generator=draw)
    return x, (x @ torch.randn(784, 10, generator=draw)).argmax(1)


def mnist_sized_source() -> Samples:
    """The same as a source of truerisk's: the last 10,000 are the test set."""
    from truerisk.data import Samples

    x, y = mnist_sized()
    return Samples(x[:60_000], y[:60_000], "classification", test=(x[60_000:], y[60_000:]))


STEP = Task(
    name="step",
    widths=(40, 100, 100, 10),
    batch_norm=False,
    batch_size=100,
    num_train=3200,
    num_val=800,
    epochs=100,
    samples=mnist1d,
    overrides=("data=mnist1d", "model=mlp", *PATIENT),
)
"""The default recipe: MNIST-1D, with a fifth of the training set held out."""

LARGE = Task(
    name="large",
    widths=(784, 64, 128, 64, 10),
    batch_norm=True,
    batch_size=128,
    num_train=55_000,
    num_val=5_000,
    epochs=10,
    samples=mnist_sized,
    overrides=(
        "data=mnist_sized",
        "model=mlp",
        "model.widths=[64,128,64]",
        "model.normalization=batch",
        *PATIENT,
    ),
)
"""MNIST's size, with the network and the batch size of lightning-hydra-template."""

TASKS = {task.name: task for task in (STEP, LARGE)}
