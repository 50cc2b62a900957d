"""Early stopping on measured values."""

from types import SimpleNamespace

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.regularizer import EarlyStopping


def trainer():
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    return SimpleNamespace(
        callback_metrics={},
        strategy=strategy,
        should_stop=False,
        current_epoch=0,
        fast_dev_run=False,
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
        world_size=1,
    )


def stops_after(risks, every=1, **numbers):
    """The number of measurements after which the run ends, or None."""
    (callback,) = EarlyStopping(**numbers).callbacks()
    run = trainer()
    callback.setup(run, None, "fit")
    for i, risk in enumerate(risks, 1):
        run.callback_metrics["risk/val"] = torch.tensor(risk)
        for _ in range(every):
            callback.on_train_epoch_end(run, None)
            run.current_epoch += 1
        if run.should_stop:
            return i
    return None


@pytest.mark.parametrize("every", [1, 5])
def test_patience_counts_measurements_without_a_fall(every):
    assert stops_after([3.0, 2.0, 2.5, 2.5, 2.5], every, patience=3) == 5
    assert stops_after([3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.5], every, patience=3) is None
    assert stops_after([1.0, 1.0], every, patience=1) == 2


def test_min_delta():
    falling = [1.0, 0.95, 0.9, 0.85]
    assert stops_after(falling, patience=2) is None
    assert stops_after(falling, patience=2, min_delta=0.2) == 3


def test_silent_and_bound_to_epoch_ends(capsys):
    (callback,) = EarlyStopping(patience=1).callbacks()
    assert callback._check_on_train_epoch_end and not callback.verbose
    assert stops_after([1.0, 2.0], patience=1) == 2
    assert capsys.readouterr().out == ""


def test_an_unknown_value_is_named():
    (callback,) = EarlyStopping(patience=1, monitor="risk/vall").callbacks()
    run = trainer()
    run.callback_metrics["risk/val"] = torch.tensor(1.0)
    with pytest.raises(ConfigError, match=r"monitor=risk/vall.*did you mean 'risk/val'"):
        callback.on_train_epoch_start(run, None)


def test_nothing_measured_yet_is_no_reason_to_stop():
    (callback,) = EarlyStopping(patience=1).callbacks()
    run = trainer()
    callback.on_train_epoch_end(run, None)
    assert not run.should_stop


def test_the_count_survives_a_restart():
    (first,) = EarlyStopping(patience=2).callbacks()
    (second,) = EarlyStopping(patience=2).callbacks()
    run = trainer()
    for risk in (1.0, 2.0):
        run.callback_metrics["risk/val"] = torch.tensor(risk)
        first.on_train_epoch_end(run, None)
    second.load_state_dict(first.state_dict())
    run.callback_metrics["risk/val"] = torch.tensor(2.0)
    second.on_train_epoch_end(run, None)
    assert run.should_stop


def test_in_lightnings_loop(tmp_path, recwarn):
    import lightning.pytorch as pl

    class Measuring(pl.LightningModule):
        """Measures a rising risk every second epoch."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            pass

        def on_train_epoch_end(self):
            if self.current_epoch % 2:
                risk = torch.tensor(float(self.current_epoch))
                self.trainer.callback_metrics["risk/val"] = risk

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    run = pl.Trainer(
        max_epochs=50,
        accelerator="cpu",
        callbacks=EarlyStopping(patience=2).callbacks(),
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(Measuring(), torch.utils.data.DataLoader(torch.zeros(2, 1)))
    assert run.current_epoch == 6


@pytest.mark.parametrize("patience", [0, 2.5, None])
def test_patience_is_whole(patience):
    with pytest.raises(ConfigError, match=r"regularizer\.early_stopping\.patience"):
        EarlyStopping(patience)
