import math
import os
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from truerisk.core.errors import ConfigError
from truerisk.logger import TensorBoard


def series(folder, name):
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_files_hold_the_series_and_the_config(tmp_path):
    logger = TensorBoard(tmp_path, config={"optimizer": {"lr": 0.125}})
    for step in range(4):
        logger.log_metrics({"risk/val": step / 8, "odd": math.nan, "epoch": step}, step=10 * step)
    logger.log_metrics({"odd": math.inf}, step=40)
    logger.save()
    logger.finalize("success")
    logger.log_metrics({"risk/test": 0.5}, step=40)
    logger.finalize("success")
    assert series(tmp_path, "risk/val") == [(0, 0.0), (10, 0.125), (20, 0.25), (30, 0.375)]
    assert series(tmp_path, "risk/test") == [(40, 0.5)]
    assert series(tmp_path, "odd")[-1] == (40, math.inf)
    assert all("tfevents" in name for name in os.listdir(tmp_path / "tensorboard"))
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (text,) = accumulator.Tensors("config/text_summary")
    assert b'"lr": 0.125' in text.tensor_proto.string_val[0]


def test_a_resumed_run_has_no_step_twice(tmp_path):
    first = TensorBoard(tmp_path)
    for step in range(6):
        first.log_metrics({"risk/val": step / 8}, step=step)
    first.finalize("failed")
    again = TensorBoard(tmp_path, resume_step=2)
    for step in range(3, 8):
        again.log_metrics({"risk/val": step / 8}, step=step)
    again.finalize("success")
    assert series(tmp_path, "risk/val") == [(step, step / 8) for step in range(8)]


def test_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("truerisk.logger.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'truerisk\[tensorboard\]'"):
        TensorBoard(tmp_path)
