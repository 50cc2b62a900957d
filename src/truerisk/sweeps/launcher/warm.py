"""A process that has run once, from which workers are forked."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from tempfile import TemporaryDirectory

TINY = ["data=iris", "model=linear", "trainer.max_epochs=1", "regularizer=[]", "threads=1"]


@cache
def warm() -> None:
    """Run a tiny recipe once, so that all that runs need is imported and set up.

    With one thread, on the CPU: a fork keeps neither threads nor CUDA.
    """
    import torch

    import truerisk

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        truerisk.train(TINY, folder=f"{folder}/run")
