import contextlib
import io
import os
import pty
import re
import sys
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from truerisk.show import Progress
from truerisk.show import progress_line as module
from truerisk.show.progress_line import fit_line

torch.set_num_threads(1)


class Model(BoringModel):
    """Measures after every epoch, as late as a module can."""

    def on_train_epoch_end(self):
        done = self.current_epoch + 1
        values = {"objective": 3 / done, "risk/train": 1 / done, "risk/val": 2 / done}
        metrics = {name: torch.tensor(value) for name, value in values.items()}
        self.trainer.callback_metrics.update(metrics)


def fit(model=None, callbacks=(), **options):
    options = {"max_epochs": 40, "limit_train_batches": 2, **options}
    trainer = L.Trainer(
        limit_val_batches=0, logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Progress(), *callbacks],
        **options,
    )  # fmt: skip
    trainer.fit(model or Model())


def said(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]


def test_few_plain_lines_without_a_terminal(capfd):
    fit()
    lines = said(capfd)
    epochs = [int(re.match(r"epoch (\d+)/40  ", line)[1]) for line in lines]
    assert epochs == [1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert "val 0.05  train 0.025  objective 0.075" in lines[-1]
    assert lines[-1].endswith("steps/s") and "\x1b" not in "".join(lines)


def test_early_stop_and_steps_for_a_limit(capfd):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 4

    fit(callbacks=[Stop()])
    assert [line.split()[1] for line in said(capfd)] == ["1/40", "4/40", "5/40"]
    fit(max_epochs=-1, max_steps=20)
    assert [line.split()[1] for line in said(capfd)] == [str(n) for n in range(1, 11)]
    fit(max_epochs=-1, max_time="00:00:00:01", limit_train_batches=300)
    assert 1 <= len(said(capfd)) <= 2


def test_silence_when_disabled_or_not_the_first_process(capfd, monkeypatch):
    trainer = L.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, accelerator="cpu")
    for progress, first in [(Progress(enabled=False), True), (Progress(), False)]:
        monkeypatch.setattr(L.Trainer, "is_global_zero", first)
        progress.on_train_start(trainer, Model())
        progress.on_train_end(trainer, Model())
    assert said(capfd) == []


class Slow(Model):
    def training_step(self, batch, index):
        time.sleep(0.01)
        return super().training_step(batch, index)


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
        fit(Slow(), max_epochs=10, limit_train_batches=8)
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
    progress, trainer = Progress(), L.Trainer(max_epochs=9, logger=False, accelerator="cpu")
    live = Live(console=console, auto_refresh=False)
    monkeypatch.setattr(module, "open_live_line", lambda: live)
    progress.on_train_start(trainer, Model())
    times = []
    for _ in range(50):
        start = time.perf_counter()
        progress._draw_line(trainer, Model())
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 0.01 * 5 * module.REFRESH
