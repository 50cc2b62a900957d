"""RiskModule as a Lightning user has it: a Trainer of their own, callbacks, checkpoints."""

from __future__ import annotations

import logging
import pickle
import warnings
from datetime import timedelta

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import SimpleProfiler

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.engine.risk_module import RiskModule

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

BY_THE_CLOCK = ModelCheckpoint(train_time_interval=timedelta(seconds=1))
OVERRIDES = ["data=iris", "data.batch_size=30", "model.width=8", "threads=1"]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|logging interval).*"
        )
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield


@pytest.fixture
def trainer(tmp_path):
    """Make a Trainer of the user's own, in a folder of its own."""

    def make(**options):
        options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        return L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **options)

    return make


def build(*overrides):
    return truerisk.build_module([*OVERRIDES, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer=lbfgs"],
        ["optimizer=sam", "regularizer=[l2,ema]"],
        ["optimizer=kfac"],
        ["scheduler=cosine", "regularizer=[max_norm,dropout]", "model.normalization=batch"],
    ],
    ids=["adam", "closure", "sam", "curvature", "schedule"],
)
def test_a_trainer_of_ones_own_trains_to_the_same_bits(trainer, run, last_weights, overrides):
    ours = last_weights(run(*OVERRIDES, *overrides, "trainer.max_epochs=2"))
    module, data = build(*overrides)
    fitted = trainer()
    torch.manual_seed(module.recipe.streams.noise)
    fitted.fit(module, datamodule=data)
    assert fitted.global_step == 6
    for name, tensor in module.model.state_dict().items():
        assert torch.equal(tensor, ours[name]), name


def test_it_logs_what_a_run_measures(trainer, run):
    ours = run(*OVERRIDES, "regularizer=[l2]", "trainer.max_epochs=2")
    history = ours.history.query("epoch == 2").set_index("name").value
    module, data = build("regularizer=[l2]")
    fitted = trainer()
    fitted.fit(module, datamodule=data)
    names = {*fitted.callback_metrics}
    # the best constant is a fact of the data, which a run of ours tells beside its own risks
    assert names == {n for n in history.index if "test" not in n and "constant" not in n}
    for name in names:
        assert fitted.callback_metrics[name].item() == pytest.approx(history[name], rel=1e-6), name


AVERAGED = ["regularizer=ema", "model.normalization=batch", "optimizer=momentum"]


def test_an_average_is_measured_with_statistics_of_its_own(trainer, run):
    result = run(*OVERRIDES, *AVERAGED, "trainer.max_epochs=2")
    module, data = build(*AVERAGED)
    fitted = trainer()
    fitted.fit(module, datamodule=data)
    history = result.history[result.history.epoch == 2].set_index("name").value
    assert float(fitted.callback_metrics["risk/val"]) == pytest.approx(history["risk/val"], 1e-5)


def test_statistics_of_an_average_are_those_of_the_loader(trainer):
    module, data = build(*AVERAGED)
    data.prepare()
    x, y = 5 + 3 * data.train.x, data.train.y
    loaders = [torch.utils.data.DataLoader([*zip(x, y, strict=True)], batch_size=30)] * 2
    trainer().fit(module, *loaders)
    state = module.backend.measured
    hidden = x.float() @ state["hidden.0.linear.weight"].T
    name = "hidden.0.normalization.running_mean"
    torch.testing.assert_close(state[name], hidden.mean(0), rtol=1e-4, atol=1e-4)


def test_validate_test_and_predict(trainer, run):
    result = run(*OVERRIDES, "trainer.max_epochs=1", "regularizer=[ema]")
    module = RiskModule.load_from_checkpoint(result.run.last)
    data = module.recipe.data
    (val,) = trainer().validate(module, datamodule=data, verbose=False)
    assert val["risk/val"] == pytest.approx(result.summary["risk/val"].value, rel=1e-6)
    (test,) = trainer().test(module, datamodule=data, verbose=False)
    for name in ("risk/test", "error/test"):
        assert test[name] == pytest.approx(result.summary[name].value, rel=1e-6)
    outputs = torch.cat(trainer().predict(module, datamodule=data))
    assert torch.allclose(outputs, result.network(data.test.x.float()))
    (alone,) = trainer().test(module, verbose=False)
    assert alone == test


def test_the_module_is_the_model(run):
    result = run(*OVERRIDES, "trainer.max_epochs=1")
    module = RiskModule.load_from_checkpoint(result.run.last)
    x = torch.randn(5, 4)
    assert torch.equal(module.eval()(x), result.network(x))
    assert module.hparams["config"]["model"]["width"] == 8
    assert module.hparams["data"]["input_shape"] == [4]


def test_the_precision_of_a_run_is_loaded(run, last_weights):
    result = run(*OVERRIDES, "trainer.max_epochs=1", "trainer.precision=64-true")
    module = RiskModule.load_from_checkpoint(result.run.last)
    for name, tensor in last_weights(result).items():
        assert torch.equal(module.model.state_dict()[name], tensor)


def test_a_checkpoint_that_tells_nothing_of_its_data(run, tmp_path):
    result = run(*OVERRIDES, "trainer.max_epochs=1")
    content = torch.load(result.run.last, weights_only=True)
    del content["hyper_parameters"]["data"]
    torch.save(content, tmp_path / "old.ckpt")
    module = RiskModule.load_from_checkpoint(tmp_path / "old.ckpt")
    assert module(torch.randn(5, 4)).shape == (5, 3)


def test_weights_alone_are_no_module(run):
    result = run(*OVERRIDES, "trainer.max_epochs=1")
    with pytest.raises(ConfigError, match=r"best\.ckpt holds no module: .*load_run") as refused:
        RiskModule.load_from_checkpoint(result.run.best)
    assert "\n" not in str(refused.value)
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        build()[0].load_from_checkpoint(result.run.last)


def test_a_fitted_module_is_pickled(trainer):
    module, data = build()
    trainer().fit(module, datamodule=data)
    again, x = pickle.loads(pickle.dumps(module)), torch.randn(5, 4)
    assert torch.equal(again(x), module(x))


def test_without_recipe_and_configuration():
    with pytest.raises(ConfigError, match=r"truerisk\.build_module"):
        RiskModule()


def test_callbacks_and_loggers_of_ones_own(trainer, tmp_path):
    module, data = build("scheduler=cosine")
    best = ModelCheckpoint(tmp_path / "kept", monitor="risk/val", save_top_k=1)
    every = ModelCheckpoint(tmp_path / "every", every_n_train_steps=3, save_top_k=-1)
    fitted = trainer(
        max_epochs=3,
        log_every_n_steps=1,
        logger=CSVLogger(tmp_path),
        enable_checkpointing=True,
        callbacks=[best, every, LearningRateMonitor("step"), EarlyStopping("risk/val")],
    )
    fitted.fit(module, datamodule=data)
    assert best.best_model_score == pytest.approx(
        fitted.callback_metrics["risk/val"].item(), rel=1e-6
    )
    assert len(list((tmp_path / "every").iterdir())) == 3
    again = RiskModule.load_from_checkpoint(best.best_model_path)
    (measured,) = trainer().validate(again, datamodule=data, verbose=False)
    assert measured["risk/val"] == pytest.approx(best.best_model_score.item(), rel=1e-6)
    rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    assert "lr-Adam" in rows[0] and "risk/gap" in rows[0]


def test_early_stopping_stops(trainer):
    module, data = build("optimizer.lr=0")
    fitted = trainer(max_epochs=9, callbacks=[EarlyStopping("risk/val", patience=2)])
    fitted.fit(module, datamodule=data)
    assert fitted.current_epoch == 3


def test_it_goes_on_from_its_own_checkpoint(trainer, tmp_path):
    overrides = ["scheduler=cosine", "regularizer=[ema,dropout]"]

    def weights(module):
        return module.model.state_dict()

    torch.manual_seed(3)
    whole, data = build(*overrides)
    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    trainer(max_epochs=3, enable_checkpointing=True, callbacks=[keep]).fit(whole, datamodule=data)
    again, data = build(*overrides)
    trainer(max_epochs=3).fit(again, datamodule=data, ckpt_path=tmp_path / "epoch=1.ckpt")
    for name, tensor in weights(again).items():
        assert torch.equal(tensor, weights(whole)[name])
    averages = (m.recipe.regularizers["ema"].averaged() for m in (whole, again))
    for one, other in zip(*(a.values() for a in averages), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"overfit_batches": 2}, 4),
        ({"fast_dev_run": True}, 1),
        ({"max_epochs": -1, "max_steps": 5}, 5),
        ({"val_check_interval": 0.5, "limit_val_batches": 1, "num_sanity_val_steps": 1}, 6),
    ],
    ids=["limit_train_batches", "overfit_batches", "fast_dev_run", "max_steps", "val_check"],
)
def test_a_trainers_own_limits_are_obeyed(trainer, options, steps):
    module, data = build("scheduler=cosine")
    fitted = trainer(**options)
    fitted.fit(module, datamodule=data)
    assert fitted.global_step == steps
    assert module.backend.run.horizon == steps
    assert module.backend.run.rates()["lr/0"] == pytest.approx(0, abs=1e-9)


def test_overfitted_batches_are_the_same_in_every_epoch(trainer):
    module, data = build()
    seen = []

    class See(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(batch[0])

    trainer(overfit_batches=1, callbacks=[See()]).fit(module, datamodule=data)
    assert torch.equal(*seen)


def test_val_check_interval_measures_in_mid_epoch(trainer):
    module, data = build()
    seen = []

    class See(L.Callback):
        def on_validation_end(self, trainer, module):
            seen.append(trainer.global_step)

    options = {"val_check_interval": 0.5, "num_sanity_val_steps": 0}
    trainer(callbacks=[See()], **options).fit(module, datamodule=data)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_epochs_that_are_not_checked(trainer):
    module, data = build()
    seen = []

    class See(L.Callback):
        def on_validation_end(self, trainer, module):
            seen.append(trainer.global_step)

    options = {"max_epochs": 5, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    trainer(callbacks=[See()], **options).fit(module, datamodule=data)
    assert seen == [6, 12]


def test_a_profiler_is_told_of_each_step(trainer):
    module, data = build()
    fitted = trainer(profiler=(profiler := SimpleProfiler()))
    fitted.fit(module, datamodule=data)
    assert len(profiler.recorded_durations["optimizer_step"]) == fitted.global_step == 6


def test_several_processes_are_refused(trainer, monkeypatch):
    module, data = build()
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    with pytest.raises(ConfigError, match="in one process: give it devices=1"):
        trainer().fit(module, datamodule=data)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("regularizer.early_stopping.patience=1", "regularizer.early_stopping"),
        ("stop.gradient_norm=0.1", "stop.gradient_norm"),
        ("diagnostics=[curvature]", "diagnostics.curvature"),
        ("risk.every=2", "risk.every"),
    ],
)
def test_what_our_own_loop_alone_does_is_told(trainer, override, name):
    module, data = build(override)
    with pytest.warns(UserWarning, match=f"^{name}: a Trainer of your own goes by its own"):
        trainer().fit(module, datamodule=data)


def test_loaders_of_ones_own(trainer):
    module, data = build()
    fitted = trainer()
    fitted.fit(module, data.train_dataloader(), data.val_dataloader())
    assert "risk/val" in fitted.callback_metrics and "risk/train" not in fitted.callback_metrics
    fitted = trainer()
    fitted.fit(build()[0])
    assert fitted.global_step == 6


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ({"gradient_clip_val": 1.0}, [], "use step.clip.norm or step.clip.value"),
        ({"accumulate_grad_batches": 2}, [], "use a larger data.batch_size"),
        ({"callbacks": [StochasticWeightAveraging(1e-2)]}, [], "choose regularizer=swa"),
        ({"callbacks": [GradientAccumulationScheduler({0: 2})]}, [], "set step.accumulate"),
        (
            {"callbacks": [BY_THE_CLOCK], "enable_checkpointing": True},
            [],
            r"ModelCheckpoint\(train_time_interval=…\) would save nothing here",
        ),
        ({"max_epochs": -1}, [], r"give Trainer\(max_epochs=…\)"),
        ({"precision": "bf16-true"}, [], "32-true, 64-true, bf16-mixed, 16-mixed do"),
        ({}, ["step.accumulate=2"], "a batch is a step"),
    ],
    ids=[
        *("clip", "accumulate", "swa", "scheduler", "clock", "endless", "precision"),
        "micro-batches",
    ],
)
def test_what_cannot_work_is_refused_in_a_line(trainer, options, overrides, message):
    module, data = build(*overrides)
    with pytest.raises(ConfigError, match=message) as refused:
        trainer(**options).fit(module, datamodule=data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("hook", ["on_before_backward", "on_before_optimizer_step"])
def test_a_hook_that_is_never_called_is_refused(trainer, hook):
    module, data = build()
    callback = type("Mine", (L.Callback,), {hook: lambda self, *args: None})()
    with pytest.raises(ConfigError, match=f"Mine overrides {hook}, which is never called"):
        trainer(callbacks=[callback]).fit(module, datamodule=data)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(trainer, precision):
    module, data = build()
    fitted = trainer(precision=precision)
    fitted.fit(module, datamodule=data)
    assert fitted.callback_metrics["risk/val"] < 1.2


def test_onnx(tmp_path):
    module, _ = build()
    sample = torch.randn(1, 4)
    try:
        import onnx  # noqa: F401
    except ImportError:
        with pytest.raises(ModuleNotFoundError, match="onnx"):
            module.to_onnx(tmp_path / "model.onnx", sample)
    else:
        module.to_onnx(tmp_path / "model.onnx", sample)
        assert (tmp_path / "model.onnx").stat().st_size


def test_one_override_outside_a_list_is_told_so():
    with pytest.raises(ConfigError, match="takes a list of overrides"):
        truerisk.build_module("model.width=5")
