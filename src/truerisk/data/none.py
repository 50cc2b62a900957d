"""No data: what stands in its place when a test function is minimised."""

from __future__ import annotations

from typing import NoReturn

import torch

from truerisk.data.data_module import DataModule
from truerisk.data.samples import DataInfo
from truerisk.data.split import TensorSplit


class NoData(DataModule):
    """One empty sample to train on and the same to validate on, so that J(w) is a function of w.

    Nothing is drawn: training and validation risk are both the function's value, known exactly.

    Args:
        batch_size: a number, or ``full``; either way an epoch is one step.

    Raises:
        ConfigError: ``batch_size`` is neither.

    >>> data = NoData()
    >>> data.prepare()
    >>> data.info.task, data.num_train, data.train.x.shape, data.test
    ('function', 1, torch.Size([1, 0]), None)
    """

    def __init__(self, batch_size: int | str = "full") -> None:
        super().__init__(_no_source, batch_size, standardize="none")

    def prepare(self) -> None:
        """Lay out the sample, once."""
        if self._ready:
            return
        self.info = DataInfo("function", (0,), 1, None)
        self._check_given()
        for name in ("train", "val"):
            setattr(self, name, TensorSplit(torch.zeros(1, 0), torch.zeros(1, 1)))
        self._ready = True


def _no_source() -> NoReturn:
    raise AssertionError("there is no data to load")
