"""A run killed at any moment goes on to the numbers of the run that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

import truerisk
from truerisk.cli import main
from truerisk.engine import measure
from truerisk.engine.step import Step
from truerisk.logger import csv
from truerisk.result import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(folder):
    return truerisk.train(OmegaConf.create({"resume": str(folder)}))


def weights(folder):
    best = load_checkpoint(folder / "checkpoints" / "best.ckpt")
    return best["risk"], best["epoch"], best["step"], best["state"]


def names(folder):
    return {p.relative_to(folder) for p in folder.rglob("*")}


def differences(one, other):
    """What differs between the numbers of two run folders."""
    files = ("summary.json", "metrics.csv", "config.yaml")
    found = [f for f in files if (one / f).read_bytes() != (other / f).read_bytes()]
    *mine, state = weights(one)
    *theirs, other_state = weights(other)
    found += ["files"] * (names(one) != names(other))
    found += ["best"] * (mine != theirs or state.keys() != other_state.keys())
    return found + [k for k in state if not torch.equal(state[k], other_state[k])]


class Moments:
    """Counts the moments at which a run moves weights or touches files, and kills it at one.

    A file is met half written aside, written aside, and in place.
    """

    def __init__(self, monkeypatch, fatal=None):
        self.count, self.fatal, self.names = 0, fatal, []
        self.replace, self.append = os.replace, csv.append_bytes
        step, measure_split = Step.__call__, measure.RiskEstimator.measure_split
        final_risks = measure.RiskEstimator.final_risks

        def stepped(instance, batches):
            step(instance, batches)
            self.moment("step")

        def measured(instance, *args):
            def split(name, *rest, **options):
                self.moment("measure")
                return measure_split(instance, name, *rest, **options)

            instance.measure_split = split
            return final_risks(instance, *args)

        monkeypatch.setattr(os, "replace", self._replace)
        monkeypatch.setattr(csv, "append_bytes", self._append)
        monkeypatch.setattr(Step, "__call__", stepped)
        monkeypatch.setattr(measure.RiskEstimator, "final_risks", measured)

    def moment(self, name, half=None):
        self.names.append(name)
        self.count += 1
        if self.count == self.fatal:
            if half is not None:
                half()
            die()

    def _replace(self, source, target):
        name = os.path.basename(target)
        self.moment(f"half {name}", lambda: os.truncate(source, os.path.getsize(source) // 2))
        self.moment(f"written {name}")
        self.replace(source, target)
        self.moment(f"in place {name}")

    def _append(self, file, rows):
        self.moment("half rows", lambda: os.write(file, rows[: len(rows) // 2]))
        self.append(file, rows)
        self.moment("rows")


RICH = [
    "regularizer=[dropout,mixup,ema,early_stopping]",
    "regularizer.early_stopping.patience=2",
    "optimizer=momentum",
    "optimizer.lr=0.3",
    "scheduler=cosine",
    "scheduler.warmup=0.3",
    "model.normalization=batch",
    "data.batch_size=23",
    "step.accumulate=2",
    "trainer.max_epochs=2",
]
"""Two steps an epoch of all that has a state of its own."""


def test_killed_at_any_moment(tiny, fork, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        moments = Moments(patch)
        tiny(tmp_path / "whole", RICH)
    wrong = {}
    for fatal, name in enumerate(moments.names, 1):
        folder = tmp_path / str(fatal)

        def work(fatal=fatal, folder=folder):
            Moments(monkeypatch, fatal)
            tiny(folder, RICH)

        assert fork(work).wait().code == -signal.SIGKILL
        began = (folder / "config.yaml").exists()
        result = go_on(folder) if began else tiny(folder, RICH)
        bad = differences(tmp_path / "whole", folder)
        if result.status != "finished" or bad:
            wrong[f"{fatal} {name}"] = (result.status, bad)
        shutil.rmtree(folder)
    assert {"step", "measure", "half last.ckpt", "half rows"} < set(moments.names)
    assert not wrong


RECIPES = {
    "full batch": "optimizer=gd data.batch_size=full scheduler=multistep",
    "quasi-Newton": "optimizer=lbfgs data.batch_size=full regularizer=[l2]",
    "sgd": "optimizer=sgd scheduler=step regularizer=[dropout]",
    "nesterov": "optimizer=nesterov scheduler=one_cycle regularizer=[mixup]",
    "adagrad": "optimizer=adagrad scheduler=exponential regularizer=[input_noise]",
    "rmsprop": "optimizer=rmsprop scheduler=linear regularizer=[swa] model.normalization=batch",
    "adadelta": "optimizer=adadelta scheduler=polynomial regularizer=[max_norm,ema]",
    "adam": "optimizer=adam scheduler=warm_restarts regularizer=[dropout,mixup,l1]",
    "adamw": "optimizer=adamw scheduler=inverse_sqrt regularizer=[spectral_norm]",
    "nadam": "optimizer=nadam scheduler=warmup_stable_decay regularizer=[entropy]",
    "radam": "optimizer=radam scheduler=cyclic regularizer=[input_gradient]",
    "adamax": "optimizer=adamax scheduler.warmup=0.5 regularizer=[orthogonality]",
    "adafactor": "optimizer=adafactor step.clip.norm=0.1 regularizer=[dropout]",
    "lion": "optimizer=lion step.clip.value=0.01 regularizer=[elastic_net,dropout]",
    "muon": "optimizer=muon scheduler=cosine regularizer=[group_lasso]",
    "schedule-free": "optimizer=schedule_free_adamw regularizer=[dropout] scheduler.warmup=0.3",
    "prodigy": "optimizer=prodigy regularizer=[dropout] param_groups=no_decay",
    "sam": "optimizer=sam regularizer=[dropout] model.normalization=batch",
    "plateau": "scheduler=plateau scheduler.patience=0 scheduler.threshold=0.5 optimizer.lr=0.1",
    "double": "trainer.precision=64-true regularizer=[dropout] optimizer=adam",
    "bfloat16": "trainer.precision=bf16-mixed regularizer=[dropout] optimizer=adam",
    "convolutions": "data=mnist1d data.num_train=90 model=cnn1d regularizer=[cutmix]",
    "images": "data=digits data.num_train=90 model=cnn regularizer=[augment] "
    "regularizer.augment.policy=randaugment regularizer.augment.white=16",
    "tokens": "data=copy_memory data.num_train=90 model=gpt model.width=8 model.depth=1 "
    "model.heads=2 optimizer=muon param_groups=muon_hidden regularizer=[dropout]",
    "read in pieces": "data.in_memory=false regularizer=[dropout]",
    "rarely measured": "risk.every=2 regularizer=[early_stopping,dropout]",
    "steps": "trainer.max_steps=8 trainer.max_epochs=-1 regularizer=[dropout]",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_in_mid_epoch(tiny, killed_after, tmp_path, recipe):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    overrides = RECIPES[recipe].split()
    tiny(whole, overrides)
    step = 3 if "data.batch_size=full" in overrides else 6
    killed_after(step, lambda: tiny(cut, overrides))
    assert load_checkpoint(cut / "checkpoints" / "last.ckpt")["truerisk"]["position"] in (
        [1, 2],
        [2, 0],
    )
    assert go_on(cut).status == "finished"
    assert differences(whole, cut) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, trained once."""
    done = {}

    def folder(tiny, *overrides):
        if overrides not in done:
            done[overrides] = tmp_path_factory.mktemp("whole") / "run"
            tiny(done[overrides], overrides)
        return done[overrides]

    return folder


@pytest.mark.parametrize("limit", ["trainer.max_steps=6", "trainer.max_steps=5", "risk.every=3"])
@pytest.mark.parametrize("moment", [0, 2])
def test_killed_in_the_final_measurement(tiny, whole, fork, tmp_path, monkeypatch, limit, moment):
    final_risks = measure.RiskEstimator.final_risks
    measure_split = measure.RiskEstimator.measure_split
    splits = []

    def measured(estimator, epoch):
        def split(name, *rest, **options):
            splits.append(name)
            if len(splits) > moment:
                die()
            return measure_split(estimator, name, *rest, **options)

        estimator.measure_split = split
        return final_risks(estimator, epoch)

    def work():
        monkeypatch.setattr(measure.RiskEstimator, "final_risks", measured)
        tiny(tmp_path / "cut", [limit])

    assert fork(work).wait().code == -signal.SIGKILL
    assert go_on(tmp_path / "cut").status == "finished"
    assert differences(whole(tiny, limit), tmp_path / "cut") == []


@pytest.mark.parametrize(
    ("limit", "step"),
    [("trainer.max_epochs=3", step) for step in (1, 2, 3, 5, 6, 9)]
    + [("trainer.max_steps=5", step) for step in (3, 4, 5)],
)
def test_asked_to_stop_at_any_step(tiny, whole, tmp_path, monkeypatch, limit, step):
    cut, overrides = tmp_path / "cut", (limit, "regularizer=[dropout]")
    taken = Step.__call__

    def stepped(instance, batches):
        taken(instance, batches)
        if instance.state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", stepped)
        result = tiny(cut, overrides)
    assert (result.status, result.reason) == ("interrupted", "SIGTERM")
    assert load_checkpoint(cut / "checkpoints" / "last.ckpt")["truerisk"]["step"]["count"] == step
    assert go_on(cut).status == "finished"
    assert differences(whole(tiny, *overrides), cut) == []


LONG = ["data.batch_size=10", "trainer.max_epochs=150", "regularizer=[dropout,mixup]"]


def rows(folder):
    file = folder / "metrics.csv"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def until(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_real_process_killed_again_and_again(tiny, fork, tmp_path):
    tiny(tmp_path / "whole", LONG)
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "truerisk", "train", *tiny.overrides, *LONG]
    command += [f"hydra.run.dir={cut}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: rows(cut) > 200)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    draw = random.Random(0)
    for death in range(6):  # while it starts, or a few of its hundred and more epochs later
        goal = 0 if death % 2 else rows(cut) + draw.randint(1, 50)
        child = fork(lambda: main(["train", f"resume={cut}"]))
        time.sleep(draw.uniform(0, 0.3))
        until(lambda goal=goal: rows(cut) > goal)
        child.signal(signal.SIGKILL)
        assert child.wait().code == -signal.SIGKILL
    assert fork(lambda: main(["train", f"resume={cut}"])).wait().code == 0
    assert differences(tmp_path / "whole", cut) == []
