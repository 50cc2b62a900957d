"""Lightning callbacks in truerisk train: each row of the table in docs/lightning.md."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as lc

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

EPOCHS, STEPS = 3, 9
"""Of the tiny run."""


@pytest.fixture
def host(tiny, tmp_path):
    """Train the tiny recipe with callbacks, in a folder of its own."""
    from truerisk.config.compose import compose

    def run(*callbacks, overrides=(), folder="run"):
        cfg = compose([*tiny.overrides, *overrides])
        return truerisk.train(cfg, folder=tmp_path / folder, callbacks=callbacks)

    return run


def rows(result, *leave_out):
    """What a run has recorded, less the names that begin in a certain way."""
    lines = result.run.metrics.read_text().splitlines()
    return [line for line in lines if not line.split(",")[2].startswith(leave_out or "\0")]


class Hooks(L.Callback):
    """Record the hooks that are called, and with which step and epoch."""

    def __init__(self):
        self.calls = []


def _recorder(name):
    def hook(self, trainer, module, *args):
        self.calls.append((name, trainer.global_step, trainer.current_epoch))

    return hook


SEEN = (
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end"),
    *("on_train_epoch_start", "on_train_epoch_end", "on_train_batch_start", "on_train_batch_end"),
    *("on_validation_start", "on_validation_end", "on_validation_epoch_start"),
    *("on_validation_epoch_end", "on_validation_batch_start", "on_validation_batch_end"),
)
for _name in SEEN:
    setattr(Hooks, _name, _recorder(_name))


RECIPES = [
    [],
    ["regularizer=[dropout,ema,l2]", "model.normalization=batch"],
    ["optimizer=lbfgs", "step.accumulate=2"],
    ["optimizer=sam", "scheduler=cosine", "trainer.max_steps=7"],
    ["optimizer=kfac", "risk.every=2"],
    ["trainer.precision=bf16-mixed", "regularizer=[mixup,swa]"],
    ["trainer.precision=64-true"],
    ["diagnostics=[update_size]"],
    ["regularizer=[early_stopping]", "optimizer.lr=0", "regularizer.early_stopping.patience=1"],
    ["optimizer=sgd", "optimizer.lr=1e30"],
]


@pytest.mark.parametrize("overrides", RECIPES, ids=lambda overrides: "+".join(overrides) or "tiny")
def test_the_numbers_are_those_of_a_run_without_them(tiny, tmp_path, host, overrides):
    alone = tiny(tmp_path / "alone", overrides)
    hosted = host(Hooks(), overrides=overrides)
    assert rows(alone) == rows(hosted)
    assert alone.summary == hosted.summary
    assert (alone.status, alone.run.status().get("stop")) == (
        hosted.status,
        hosted.run.status().get("stop"),
    )
    weights = [torch.load(r.run.last, weights_only=True)["state_dict"] for r in (alone, hosted)]
    for one, other in zip(*(w.values() for w in weights), strict=True):
        assert torch.equal(one, other)


def test_a_test_function_is_hosted_too(run, tmp_path):
    overrides = ["data=none", "model=rosenbrock", "optimizer=sgd", "optimizer.lr=1e-3"]
    alone = run(*overrides, "trainer.max_epochs=5")
    hosted = truerisk.train(
        [*overrides, "trainer.max_epochs=5"], folder=tmp_path / "run", callbacks=[Hooks()]
    )
    assert rows(alone) == rows(hosted) and alone.summary == hosted.summary


def test_a_step_is_a_step_and_a_measurement_a_validation(host):
    hooks = Hooks()
    host(hooks)
    assert [call for call in hooks.calls if call[0] == "on_train_batch_end"] == [
        ("on_train_batch_end", step, (step - 1) // 3) for step in range(1, STEPS + 1)
    ]
    assert [step for name, step, _ in hooks.calls if name == "on_validation_end"] == [3, 6, 9]
    assert {name for name, *_ in hooks.calls} == {*SEEN}
    assert hooks.calls[-1][0] == "on_fit_end"


def test_epochs_that_are_not_measured_are_not_validated(host):
    hooks = Hooks()
    host(hooks, overrides=["risk.every=2", "trainer.max_epochs=5"])
    assert [step for name, step, _ in hooks.calls if name == "on_validation_end"] == [6, 12]
    assert [step for name, step, _ in hooks.calls if name == "on_train_epoch_end"] == [
        3,
        6,
        9,
        12,
        15,
    ]


def test_what_was_measured_is_seen(host):
    seen = []

    class See(L.Callback):
        def on_validation_epoch_end(self, trainer, module):
            seen.append(dict(trainer.callback_metrics))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            assert outputs["loss"].isfinite() and module.training
            x, y = batch
            assert len(x) == len(y) == 30

    result = host(See())
    risks = result.history.query("name == 'risk/val' and epoch > 0").value.tolist()
    class_names = {"risk/train", "risk/gap", "objective", "lr/0", "batch/loss"}
    assert class_names <= seen[-1].keys()
    assert [float(s["risk/val"]) for s in seen] == pytest.approx(risks, rel=1e-6)


# --- the table of what works ----------------------------------------------------------------------


def test_learning_rate_monitor(host):
    result = host(
        lc.LearningRateMonitor("step"),
        overrides=["scheduler=cosine", "+trainer.log_every_n_steps=1"],
    )
    logged = result.history[result.history.name == "lr-Adam"]
    assert len(logged) == STEPS and logged.value.is_monotonic_decreasing


def test_device_stats_monitor(host, monkeypatch):
    from lightning.pytorch.accelerators import CPUAccelerator

    # as where psutil is installed
    monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", True)
    monkeypatch.setattr(CPUAccelerator, "get_device_stats", lambda *_: {"cpu_percent": 1.0})
    result = host(lc.DeviceStatsMonitor(cpu_stats=True), overrides=["+trainer.log_every_n_steps=1"])
    assert result.history.name.str.startswith("DeviceStatsMonitor").any()


def test_model_checkpoint_by_steps(host):
    from truerisk.engine.risk_module import RiskModule

    result = host(lc.ModelCheckpoint(every_n_train_steps=4, save_top_k=-1))
    files = sorted((result.folder / "checkpoints/lightning").iterdir())
    assert [f.name for f in files] == ["epoch=1-step=4.ckpt", "epoch=2-step=8.ckpt"]
    assert RiskModule.load_from_checkpoint(files[0])(torch.randn(2, 4)).shape == (2, 3)


def test_model_checkpoint_by_epochs(host):
    result = host(lc.ModelCheckpoint(every_n_epochs=2, save_top_k=-1))
    files = (result.folder / "checkpoints/lightning").iterdir()
    assert [f.name for f in files] == ["epoch=1-step=6.ckpt"]


def test_model_checkpoint_by_risk(host):
    keep = lc.ModelCheckpoint(monitor="risk/val", save_last=True)
    result = host(keep)
    assert float(keep.best_model_score) == pytest.approx(result.summary["risk/val"].value, rel=1e-6)
    assert (result.folder / "checkpoints/lightning/last.ckpt").exists() and result.run.last.exists()


def test_early_stopping(host):
    result = host(
        lc.EarlyStopping("risk/val", patience=1),
        overrides=["optimizer.lr=0", "trainer.max_epochs=9"],
    )
    assert result.status == "finished" and result.history.epoch.max() == 2
    assert "trainer.should_stop" in result.run.status()["reason"]
    assert "risk/test" in result.summary


def test_timer_in_mid_epoch(host):
    result = host(lc.Timer(duration={"microseconds": 1}, interval="step"))
    assert result.status == "finished" and result.history.step.max() == 1


def test_timer_counts(host):
    timer = lc.Timer()
    host(timer)
    assert timer.time_elapsed("train") > 0 and timer.time_elapsed("validate") > 0


@pytest.mark.parametrize("name", ["ModelSummary", "RichModelSummary"])
def test_model_summary(host, capsys, name):
    host(getattr(lc, name)())
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("Surrogate") == 1


@pytest.mark.parametrize("name", ["TQDMProgressBar", "RichProgressBar"])
def test_progress_bar(host, capsys, name):
    host(getattr(lc, name)())
    captured = capsys.readouterr()
    assert "Epoch 2" in captured.out + captured.err
    assert "steps/s" not in captured.err


def test_lambda_callback(host):
    ends = []
    host(lc.LambdaCallback(on_train_epoch_end=lambda trainer, module: ends.append(1)))
    assert len(ends) == EPOCHS


def test_throughput_monitor(host):
    def count(batch):
        return len(batch[0]) if isinstance(batch, tuple) else len(batch)

    monitor = lc.ThroughputMonitor(batch_size_fn=count, window_size=2)
    result = host(monitor, overrides=["+trainer.log_every_n_steps=1"])
    assert result.history.name.str.startswith(("train/", "validate/")).any()


# --- where they come from -------------------------------------------------------------------------


def test_from_diagnostics(run, capsys):
    result = run(
        *("data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=2"),
        "+diagnostics.kept={_target_: lightning.pytorch.callbacks.ModelCheckpoint, "
        "every_n_train_steps: 2, save_top_k: -1}",
    )
    assert len(list((result.folder / "checkpoints/lightning").iterdir())) == 3


class Bringer(Regularizer):
    """A regularizer that is carried out by a callback."""

    def callbacks(self):
        class Stop(L.Callback):
            def on_train_batch_end(self, trainer, module, *args):
                trainer.should_stop = trainer.global_step == 2

        return [Stop()]


@pytest.mark.parametrize("form", [lambda one: one, lambda one: {"mine": one}], ids=["one", "dict"])
def test_given_without_a_list(tiny, tmp_path, form):
    hooks = Hooks()
    truerisk.train(tiny.overrides, folder=tmp_path / "run", callbacks=form(hooks))
    assert hooks.calls[-1][0] == "on_fit_end"


def test_from_a_regularizer(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "bringer", SimpleNamespace(Bringer=Bringer))
    result = run(
        *("data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=2"),
        "+regularizer.mine={_target_: bringer.Bringer}",
    )
    assert result.history.step.max() == 2


def test_the_profiler_prints(run, capsys):
    run(
        *("data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=1"),
        "+trainer.profiler=simple",
    )
    out = capsys.readouterr().out
    assert "optimizer_step" in out and "run_training_batch" in out


def test_other_arguments_reach_the_trainer(host):
    seen = []

    class See(L.Callback):
        def on_train_start(self, trainer, module):
            seen.append((trainer.min_epochs, torch.are_deterministic_algorithms_enabled()))

    host(See(), overrides=["+trainer.min_epochs=2", "+trainer.deterministic=true"])
    assert seen == [(2, True)] and not torch.are_deterministic_algorithms_enabled()


def test_without_them_our_own_loop_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(L.Trainer, "__init__", None)
    assert tiny(tmp_path / "run").status == "finished"


# --- going on -------------------------------------------------------------------------------------


def test_a_callback_goes_on_with_its_run(tiny, tmp_path, host, fork):
    overrides = ["regularizer=[dropout]", "trainer.max_epochs=4"]

    def make():
        return Hooks(), lc.EarlyStopping("risk/val", patience=9)

    whole = host(*make(), overrides=overrides, folder="whole")

    class Killer(L.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 8:
                os.kill(os.getpid(), signal.SIGKILL)

    child = fork(lambda: host(Killer(), *make()[1:], overrides=overrides, folder="cut"))
    assert child.wait().code == -signal.SIGKILL
    hooks, early = make()
    again = truerisk.train([f"resume={tmp_path / 'cut'}"], callbacks=[hooks, early])
    assert rows(again) == rows(whole) and again.summary == whole.summary
    steps = [step for name, step, _ in hooks.calls if name == "on_train_batch_end"]
    assert steps == list(range(8, 13))
    assert [e for name, _, e in hooks.calls if name == "on_train_epoch_end"] == [2, 3]
    assert float(early.best_score) == pytest.approx(whole.summary["risk/val"].value, rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [4, 6], ids=["mid-epoch", "end"])
def test_a_signal_ends_and_saves(tiny, tmp_path, host, number, step):
    whole = host(Hooks(), folder="whole")

    class Sender(L.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == step:
                os.kill(os.getpid(), number)

    cut = host(Sender(), folder="cut")
    assert (cut.status, cut.run.status()["stop"]["kind"]) == ("interrupted", "signal")
    again = truerisk.train([f"resume={tmp_path / 'cut'}"])
    assert rows(again) == rows(whole) and again.summary == whole.summary


# --- what is refused ------------------------------------------------------------------------------

REFUSED = {
    "StochasticWeightAveraging": ({"swa_lrs": 1e-2}, "choose regularizer=swa"),
    "WeightAveraging": ({}, "choose regularizer=ema"),
    "EMAWeightAveraging": ({}, "choose regularizer=ema"),
    "GradientAccumulationScheduler": ({"scheduling": {0: 2}}, r"set step\.accumulate"),
    "BatchSizeFinder": ({}, r"set data\.batch_size"),
    "LearningRateFinder": (
        {},
        r"diagnostics=\[lr_range\], or optimizer\.lr=1e-4,1e-3,1e-2 --multirun",
    ),
    "BackboneFinetuning": ({}, r"param_groups\.rules"),
    "OnExceptionCheckpoint": ({"dirpath": "."}, "resume=FOLDER goes on"),
    "ModelPruning": ({"pruning_fn": "l1_unstructured"}, "choose regularizer=l1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_in_a_line(host, tmp_path, name):
    options, remedy = REFUSED[name]
    with pytest.raises(ConfigError, match=f"{name} cannot work here: .*{remedy}") as refused:
        host(getattr(lc, name)(**options))
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "hook",
    ["on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad"],
)
def test_hooks_inside_a_step_are_refused(host, hook):
    callback = lc.LambdaCallback(**{hook: lambda *args: None})
    with pytest.raises(ConfigError, match=f"overrides {hook}, which is never called"):
        host(callback)


def test_hooks_outside_training_are_refused(host):
    callback = lc.LambdaCallback(on_test_end=lambda *args: None)
    with pytest.raises(ConfigError, match="overrides on_test_end, which training never calls"):
        host(callback)


def test_a_checkpoint_by_the_clock_is_refused(host):
    # Lightning itself lets it pass, and saves nothing where optimization is manual
    by_the_clock = lc.ModelCheckpoint(train_time_interval=timedelta(seconds=1))
    with pytest.raises(ConfigError, match=r"train_time_interval=….*give every_n_train_steps"):
        host(by_the_clock)


@pytest.mark.parametrize("hook", ["on_save_checkpoint", "on_load_checkpoint"])
def test_hooks_of_other_checkpoints_are_told(host, capsys, hook):
    host(lc.LambdaCallback(**{hook: lambda *args: None}))
    said = f"the callback LambdaCallback: {hook} will not be called for the run's own checkpoints"
    assert said in capsys.readouterr().err


def test_hooks_that_are_not_called_beside_others_that_are(host, capsys):
    class Mixed(lc.Callback):
        seen = 0

        def on_validation_epoch_end(self, trainer, module):
            self.seen += 1

        def on_test_end(self, trainer, module):
            raise AssertionError

    host(callback := Mixed())
    assert callback.seen
    assert "the callback Mixed: on_test_end will not be called" in capsys.readouterr().err


def test_a_number_that_is_not_measured(host, tmp_path):
    with pytest.raises(
        ConfigError, match=r"follows 'risk/vall'.*did you mean 'risk/val'"
    ) as refused:
        host(lc.EarlyStopping("risk/vall"))
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_what_is_no_callback_at_all(run):
    with pytest.raises(ConfigError, match=r"diagnostics\.odd: Identity is neither"):
        run("data=iris", "+diagnostics.odd={_target_: torch.nn.Identity}")


def test_several_processes_are_refused(run):
    with pytest.raises(ConfigError, match=r"set trainer\.devices=1"):
        run(
            *("data=iris", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
            "+trainer.profiler=simple",
        )


def test_processes_that_copy_this_one_are_refused(run):
    with pytest.raises(ConfigError, match="copies a process that is under way: use ddp"):
        run("data=iris", "trainer=ddp", "trainer.accelerator=cpu", "trainer.strategy=ddp_spawn")


@pytest.mark.parametrize("key", ["plugins", "barebones", "val_check_interval"])
def test_arguments_that_would_do_nothing_are_refused(run, key):
    with pytest.raises(ConfigError, match=rf"trainer\.{key} does not apply here: "):
        run("data=iris", f"+trainer.{key}=1")


def test_the_rate_finder_of_a_tuner_is_refused_in_a_line():
    from lightning.pytorch.tuner import Tuner

    module, data = truerisk.build_module(["data=iris"])
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ConfigError, match="LearningRateFinder cannot work here"):
        Tuner(trainer).lr_find(module, datamodule=data)


def test_the_command_line_refuses_with_exit_code_2(tiny, tmp_path, monkeypatch, capsys):
    from truerisk.cli import main

    monkeypatch.chdir(tmp_path)
    node = "{_target_: lightning.pytorch.callbacks.BatchSizeFinder}"
    assert main(["train", *tiny.overrides, f"+diagnostics.size={node}"]) == 2
    assert "BatchSizeFinder cannot work here: set data.batch_size" in capsys.readouterr().err
