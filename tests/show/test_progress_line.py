import contextlib
import io
import math
import os
import pty
import re
import sys
import time
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from truerisk.core.stop import Stop
from truerisk.engine.host import Host
from truerisk.engine.loop import TrainingLoop
from truerisk.engine.precision import DevicePrecision
from truerisk.engine.state import RunState, TrainingRun
from truerisk.risk.measured import Measured
from truerisk.show import Progress
from truerisk.show import progress_line as module
from truerisk.show.progress_line import fit_line

torch.set_num_threads(1)


class Backend:
    """A run of two steps an epoch that measures made-up numbers, or of more that take a while."""

    def __init__(self, steps=2, epochs=40, pause=0.0, horizon=None, stop_at=None):
        state = RunState()
        self.steps, self.pause, self.stop_at = steps, pause, stop_at
        plan = SimpleNamespace(steps_per_epoch=steps)
        recipe = SimpleNamespace(
            risk=SimpleNamespace(every=1),
            data=mock.Mock(),
            monitor="risk/val",
            orient=lambda name, value: value,
        )
        recorder = mock.Mock(config={})
        self.run = TrainingRun(
            recipe, plan, horizon or steps * epochs, epochs, mock.Mock(), mock.Mock(),
            SimpleNamespace(tables={}, losses={}), [],
            recorder, state,
        )  # fmt: skip
        self.run.schedule.optimizer.param_groups, self.run.schedule.notices = [], []
        self.run.checkpoint = lambda parts: {}
        self.runs = [self.run]
        self.host = Host(DevicePrecision(torch.device("cpu"), "32-true"))

    def begin(self):
        pass

    def rest_of_epoch(self):
        return iter(range(min(self.steps, self.run.horizon - self.run.state.step)))

    def take_step(self, batch):
        time.sleep(self.pause)
        self.run.state.step += 1
        self.run.state.step_in_epoch += 1
        return {}

    def evaluating(self):
        return contextlib.nullcontext()

    def epoch_risks(self, rows):
        done = self.run.state.epoch or math.inf
        if done == self.stop_at:
            self.run.state.stop = Stop("patience", self.run.state.step, {})
        values = {"objective": 3 / done, "risk/train": 1 / done, "risk/val": 2 / done}
        return [{name: Measured(value) for name, value in values.items()}]

    def copy_weights(self, row):
        return {}

    def final_risks(self, rows):
        return [{} for _ in rows]

    def checkpoint_parts(self, rows):
        return [None for _ in rows]

    def keep(self, rows):
        self.runs = [self.runs[k] for k in rows]


def fit(deadline=math.inf, **options):
    TrainingLoop(Backend(**options), [Progress()], deadline=deadline).train()


def said(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]


def test_few_plain_lines_without_a_terminal(capfd):
    fit()
    lines = said(capfd)
    epochs = [int(re.match(r"epoch (\d+)/40  ", line)[1]) for line in lines]
    assert epochs == [1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert "val 0.05  train 0.025  objective 0.075" in lines[-1]
    assert lines[-1].endswith("steps/s") and "\x1b" not in "".join(lines)


def test_a_plain_line_repeats_no_risk_of_an_earlier_epoch(capfd):
    backend = Backend()
    backend.run.recipe.risk.every = 3
    TrainingLoop(backend, [Progress()]).train()
    lines = {int(re.search(r"\d+", line)[0]): "val" in line for line in said(capfd)}
    assert len(lines) == 11 and lines == {n: n % 3 == 0 or n == 40 for n in lines}


def test_early_stop_and_steps_for_a_limit(capfd):
    fit(stop_at=5)
    assert [line.split()[1] for line in said(capfd)] == ["1/40", "4/40", "5/40"]
    fit(epochs=-1, horizon=20)
    assert [line.split()[1] for line in said(capfd)] == [str(n) for n in range(1, 11)]
    fit(epochs=-1, horizon=10**9, steps=300, pause=0.004, deadline=1.0)
    assert 1 <= len(said(capfd)) <= 2


def test_no_line_of_a_run_that_was_at_its_end(capfd):
    backend = Backend(epochs=3)
    TrainingLoop(backend, [Progress()]).train()
    assert len(said(capfd)) == 3
    backend.runs = [backend.run]
    TrainingLoop(backend, [Progress()]).train()
    assert not said(capfd)


def test_silence_when_disabled_or_not_the_first_process(capfd):
    for progress, rank in [(Progress(enabled=False), 0), (Progress(), 1)]:
        backend = Backend()
        backend.host.rank = rank
        TrainingLoop(backend, [progress]).train()
    assert said(capfd) == []


def in_terminal(function):
    """What a function writes when it runs, in a process of its own, on a terminal."""
    child, leader = pty.fork()
    if not child:
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        function()
        sys.stdout.flush()
        os._exit(0)
    text = b""
    with contextlib.suppress(OSError):
        while part := os.read(leader, 65536):
            text += part
    os.waitpid(child, 0)
    return text.decode()


def test_one_live_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")

    def job():
        fit(epochs=10, steps=8, pause=0.01)
        print("after")

    screen = in_terminal(job)
    assert "\x1b[2K" in screen
    drawn = re.findall(r"epoch (\d+)/10 ([━─]+) [^\r\n]*", screen)
    assert 3 <= len(drawn) <= 12
    assert drawn[-1][0] == "10" and set(drawn[-1][1]) == {"━"}
    assert "val 0.2  train 0.1  objective 0.3" in screen
    assert "\x1b[?25h" in screen and screen.rstrip().endswith("after")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_live_line_fits_its_terminal(width):
    parts = ["epoch 37/100", "val 0.5234", "train 0.123", "objective 0.1", "0:12", "12k steps/s"]
    line = fit_line(parts, 0.37, width)
    assert len(line) < width and line.startswith("epoch 37/100")
    assert ("val" in line) == (width >= 40)


def test_a_redraw_costs_less_than_a_hundredth_of_the_time_between_two(monkeypatch):
    from rich.console import Console
    from rich.live import Live

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress, loop = Progress(), TrainingLoop(Backend(epochs=9))
    live = Live(console=console, auto_refresh=False)
    monkeypatch.setattr(module, "open_live_line", lambda: live)
    progress.on_start(loop)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        progress._draw_line(loop.first, running=True)
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 0.01 * 5 * module.REFRESH
