"""Early stopping on measured values."""

import math
from types import SimpleNamespace

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.core.stop import Stop
from truerisk.regularizer import EarlyStopping


def stand():
    recipe = SimpleNamespace(orient=lambda name, value: value)
    return SimpleNamespace(state=SimpleNamespace(step=7), recipe=recipe)


def stops_after(risks, **numbers):
    """The number of measurements after which the run ends, or None."""
    (rule,) = EarlyStopping(**numbers).stop_rules()
    for i, risk in enumerate(risks, 1):
        if rule.decide(stand(), {"risk/val": risk}) is not None:
            return i
    return None


def test_patience_counts_measurements_without_a_fall():
    assert stops_after([3.0, 2.0, 2.5, 2.5, 2.5], patience=3) == 5
    assert stops_after([3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.5], patience=3) is None
    assert stops_after([1.0, 1.0], patience=1) == 2


def test_min_delta():
    falling = [1.0, 0.95, 0.9, 0.85]
    assert stops_after(falling, patience=2) is None
    assert stops_after(falling, patience=2, min_delta=0.2) == 3


def test_it_ends_as_early_stopping(capsys):
    (rule,) = EarlyStopping(patience=1).stop_rules()
    assert rule.decide(stand(), {"risk/val": 1.0}) is None
    assert rule.decide(stand(), {"risk/val": 2.0}) == Stop("patience", 7, {})
    assert capsys.readouterr().out == ""


def test_what_is_no_number_never_falls():
    assert stops_after([1.0, math.nan], patience=9) == 2


def test_an_unknown_value_is_named():
    (rule,) = EarlyStopping(patience=1, monitor="risk/vall").stop_rules()
    with pytest.raises(ConfigError, match=r"monitor=risk/vall.*did you mean 'risk/val'"):
        rule.check({"risk/val": 1.0})


def test_the_count_survives_a_restart():
    (first,) = EarlyStopping(patience=2).stop_rules()
    (second,) = EarlyStopping(patience=2).stop_rules()
    for risk in (1.0, 2.0):
        assert first.decide(stand(), {"risk/val": risk}) is None
    second.load_state_dict(first.state_dict())
    assert second.decide(stand(), {"risk/val": 2.0}) is not None


def test_it_goes_on_from_the_state_of_lightnings_callback():
    """Checkpoints of the first version hold that."""
    from lightning.pytorch.callbacks import EarlyStopping as Callback

    callback = Callback("risk/val", patience=3)
    callback.wait_count, callback.best_score = 2, torch.tensor(1.0, dtype=torch.float64)
    (rule,) = EarlyStopping(patience=3).stop_rules()
    rule.load_state_dict(callback.state_dict())
    assert rule.decide(stand(), {"risk/val": 1.5}) is not None


def test_only_measured_epochs_count(run):
    """A rising risk, measured every second epoch: the third measurement is the second rise."""
    result = run(
        "data=iris",
        "model=linear",
        "optimizer=sgd",
        "optimizer.lr=300",
        "regularizer=early_stopping",
        "regularizer.early_stopping.patience=2",
        "trainer.max_epochs=50",
        "risk.every=2",
    )
    risks = result.history[result.history.name == "risk/val"].set_index("epoch").value
    falls = risks.drop(0)
    best = falls.idxmin()
    assert result.run.status()["stop"]["kind"] == "patience"
    assert list(falls.index[-3:]) == [best, best + 2, best + 4]


@pytest.mark.parametrize("patience", [0, 2.5, None])
def test_patience_is_whole(patience):
    with pytest.raises(ConfigError, match=r"regularizer\.early_stopping\.patience"):
        EarlyStopping(patience)
