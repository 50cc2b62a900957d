"""SIGTERM and Ctrl-C save the run, say how to go on with it, and change none of its numbers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
import time

import pytest

from truerisk.cli import main
from truerisk.engine import measure
from truerisk.engine.signals import on_stop

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
LONG = ["data.batch_size=10", "trainer.max_epochs=60", "regularizer=[dropout,ema]"]


def status(folder):
    return json.loads((folder / "status.json").read_text())


def measured(folder):
    return [(folder / name).read_bytes() for name in ("metrics.csv", "summary.json")]


def until(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def going(folder, rows=50):
    file = folder / "metrics.csv"
    return file.exists() and file.read_bytes().count(b"\n") > rows


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_on_the_command_line(tiny, fork, tmp_path, number, code):
    whole, cut = tmp_path / "whole", tmp_path / "it's cut"
    tiny(whole, LONG)
    folder = f'hydra.run.dir="{cut}"'
    child = fork(lambda: main(["train", *tiny.overrides, *LONG, "checkpoint_seconds=1000", folder]))
    until(lambda: going(cut))
    child.signal(number)
    ended = child.wait()
    assert ended.code == code, ended.text
    name = signal.Signals(number).name
    assert (status(cut)["status"], status(cut)["reason"]) == ("interrupted", name)
    assert f"stopped by {name}; go on with: truerisk train resume=" in ended.text
    assert "Traceback" not in ended.text
    assert not (cut / "summary.json").exists()

    said = ended.text.split("go on with: truerisk train ")[1].splitlines()[0]
    ended = fork(lambda: main(["train", *shlex.split(said)])).wait()
    assert ended.code == 0, ended.text
    assert status(cut)["status"] == "finished"
    assert measured(cut) == measured(whole)


def test_a_notice_that_somebody_waits_for_has_its_turn_after_the_block():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append("listener"))
    try:
        with on_stop(lambda name: heard.append(name)):
            os.kill(os.getpid(), signal.SIGUSR2)
            until(lambda: heard)
            assert heard == ["SIGTERM"]
        assert heard == ["SIGTERM", "listener"]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_notice_that_nobody_waits_for_is_left_alone():
    with on_stop(lambda name: None):
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_second_ctrl_c_does_not_wait(tiny, fork, tmp_path, monkeypatch):
    def hang(*_):
        (tmp_path / "measuring").touch()
        time.sleep(3600)

    def work():
        monkeypatch.setattr(measure.RiskEstimator, "final_risks", hang)
        return main(["train", *tiny.overrides, f"hydra.run.dir={tmp_path / 'run'}"])

    child = fork(work)
    until((tmp_path / "measuring").exists)
    child.signal(signal.SIGINT)
    time.sleep(0.2)
    child.signal(signal.SIGINT)
    ended = child.wait()  # which kills it long before it would have measured
    assert ended.code == 130, ended.text
    assert status(tmp_path / "run")["status"] == "interrupted"
    assert "truerisk train resume=" in ended.text and "Traceback" not in ended.text
    assert main(["train", f"resume={tmp_path / 'run'}"]) == 0


def test_ctrl_c_before_training(tiny, fork, tmp_path, monkeypatch):
    def work():
        monkeypatch.setattr(
            "truerisk.data.RunData.prepare", lambda *_: os.kill(os.getpid(), signal.SIGINT)
        )
        return main(["train", *tiny.overrides, f"hydra.run.dir={tmp_path / 'a' / 'run'}"])

    ended = fork(work).wait()
    assert (ended.code, ended.text) == (130, "interrupted\n")


def test_a_sweep_stops_at_the_job_that_was_asked_to(tiny, fork, tmp_path):
    sweep = tmp_path / "sweep"
    args = [*tiny.overrides, *LONG, "seed=1,2", f"hydra.sweep.dir={sweep}"]
    child = fork(lambda: main(["train", "-m", *args]))
    until(lambda: any(map(going, sweep.glob("seed=1-*"))))
    child.signal(signal.SIGTERM)
    ended = child.wait()
    assert ended.code == 143, ended.text
    assert [status(cell)["status"] for cell in sweep.glob("seed=*")] == ["interrupted"]


def test_handlers_are_as_before(tiny, tmp_path):
    before = [signal.getsignal(number) for number in signal.Signals]
    tiny(tmp_path / "run")
    assert [signal.getsignal(number) for number in signal.Signals] == before


def test_on_stop_hears_the_first_signal_only():
    heard = []
    with pytest.raises(KeyboardInterrupt), on_stop(heard.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == ["SIGINT"]
        os.kill(os.getpid(), signal.SIGINT)
    assert heard == ["SIGINT"]


def test_on_stop_leaves_other_threads_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with on_stop(seen.append):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
