from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import traceback
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

# read as numpy and torch are loaded, here and in what is started: threads of two busy processes
# wait for each other, and a fit of three numbers takes six times as long
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

gc.disable()


def pytest_collection_finish():
    """Leave all that is loaded out of searches for garbage, each of which went through it."""
    gc.enable()
    gc.freeze()


TINY = [
    "data=iris",
    "data.batch_size=30",
    "model.width=8",
    "trainer.max_epochs=3",
    "checkpoint_seconds=0",
]
"""Three steps an epoch, three epochs; run folders in a tenth of a second."""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without their figure, which takes longer than all the rest of a tiny one."""
    monkeypatch.setattr("truerisk.show.figure.draw_result", lambda result, config: None)


@pytest.fixture
def tiny(one_thread, undrawn):
    """Train a tiny recipe, changed by overrides, in a folder."""
    import truerisk
    from truerisk.config.compose import compose

    composed = cache(lambda *overrides: compose([*TINY, *overrides]))

    def run(folder, overrides=()):
        return truerisk.train(composed(*overrides), folder=folder)

    run.overrides = TINY
    return run


class Child:
    """A process forked from this one, which has everything imported: what a fresh one would be.

    ``code`` is its exit code, or minus the signal that killed it; ``text`` is what it printed.
    """

    def __init__(self, work, output: Path) -> None:
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(work)

    def _work(self, work) -> None:
        code = 1
        try:
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
            torch.set_num_threads(1)
            code = work()
            code = code if isinstance(code, int) else 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)

    def signal(self, number) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> SimpleNamespace:
        """How it ended; killed if that takes too long."""
        late = threading.Timer(seconds, self.signal, [signal.SIGKILL])
        late.start()
        _, status = os.waitpid(self.pid, 0)
        late.cancel()
        code = os.waitstatus_to_exitcode(status)
        return SimpleNamespace(code=code, text=self.output.read_text(errors="replace"))


@pytest.fixture
def fork(tmp_path):
    """Start work in a `Child`; several at once write to files of their own."""
    return lambda work, output="output.txt": Child(work, tmp_path / output)


@pytest.fixture
def killed_after(fork, monkeypatch):
    """Do some work in a `Child` that dies right after a run's step, before its checkpoint.

    ``when`` says whether that is the run that is meant; checkpoints are written after every step.
    """

    def killed(number, work, when=lambda: True):
        from truerisk.engine.step import Step

        step = Step.__call__

        def stepped(instance, batches):
            step(instance, batches)
            if instance.state.step == number and when():
                os.kill(os.getpid(), signal.SIGKILL)

        def doomed():
            monkeypatch.setattr(Step, "__call__", stepped)
            return work()

        assert fork(doomed).wait().code == -signal.SIGKILL

    return killed


@pytest.fixture(scope="session", autouse=True)
def single_thread():
    """Next to a busy process, tiny models on two threads take ten times as long as on one."""
    torch.set_num_threads(1)


def _assembled(*overrides, dtype=torch.float64):
    """A recipe's parts, with its weights and its data in one dtype."""
    from truerisk.assemble import assemble
    from truerisk.config.compose import compose

    recipe = assemble(compose(overrides))
    recipe.model.to(dtype)
    for name in ("train", "val", "test"):
        setattr(recipe.data, name, getattr(recipe.data, name).to("cpu", dtype))
    return recipe


def _stepping(*overrides, scaler=None, horizon=100, dtype=torch.float64):
    """A recipe and its `Step`, without Lightning."""
    from truerisk.engine.host import Host
    from truerisk.engine.precision import DevicePrecision
    from truerisk.engine.several_looks import make_step
    from truerisk.objective import Objective

    host = Host(DevicePrecision(torch.device("cpu"), "32-true"))
    if scaler is not None:
        host.scaler, host.backward = scaler, host.backward_scaled
    recipe = _assembled(*overrides, dtype=dtype)
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    optimizer = recipe.optimizer(recipe.model)
    schedule = recipe.schedule(optimizer, horizon)
    return recipe, make_step(recipe, objective, optimizer, schedule, host)


def _micro_batches(recipe, steps):
    """The micro-batches of a run's first optimizer steps, with their shares."""
    plan, taken, epoch = recipe.plan(), 0, 0
    while True:
        for step in plan.epoch(epoch):
            if taken == steps:
                return
            batches = recipe.data.train.batches([index for index, _ in step])
            yield [(batch, share) for batch, (_, share) in zip(batches, step, strict=True)]
            taken += 1
        epoch += 1


@pytest.fixture(scope="session")
def assembled():
    return _assembled


@pytest.fixture(scope="session")
def stepping():
    return _stepping


@pytest.fixture(scope="session")
def micro_batches():
    return _micro_batches


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Train what the overrides say, in a fresh folder, without a figure."""
    import truerisk

    def run(*overrides):
        with mock.patch("truerisk.show.figure.draw_result"):
            return truerisk.train(overrides, folder=tmp_path_factory.mktemp("run"))

    return run


@pytest.fixture(scope="session")
def last_weights():
    """The model's state at the end of a run's training, which need not be its best."""

    def read(result):
        state = torch.load(result.run.last, weights_only=True)["state_dict"]
        own = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        return own

    return read


@pytest.fixture(scope="session")
def series():
    """One logged quantity of a run, by epoch."""

    def read(result, name):
        history = result.history
        return history[history.name == name].set_index("epoch").value

    return read
