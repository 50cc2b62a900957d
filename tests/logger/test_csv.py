import math
import os
import random
import signal
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from truerisk.logger import TidyCSV, read_history


def rows(frame):
    return list(frame.itertuples(index=False, name=None))


def test_values_come_back_to_the_last_bit(tmp_path):
    draw = random.Random(0)
    values = [draw.uniform(-1, 1) * 10 ** draw.randint(-300, 300) for _ in range(500)]
    values += [0.1, -0.0, 5e-324, 1.7976931348623157e308]
    logger = TidyCSV(tmp_path)
    for step, value in enumerate(values):
        logger.log_metrics({"risk/val": value, "epoch": step // 7}, step=step)
    history = read_history(tmp_path)
    assert [v.hex() for v in history.value] == [v.hex() for v in values]
    assert history.epoch.tolist() == [step // 7 for step in range(len(values))]
    assert history.step.tolist() == list(range(len(values)))


def test_non_finite_values_tensors_and_odd_names(tmp_path):
    logger = TidyCSV(tmp_path)
    odd = 'lr/a,"b" \nnan'
    logger.log_metrics({"x": math.nan, "y": -math.inf, odd: torch.tensor(0.5), "NA": 1}, step=3)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.startswith("step,epoch,name,value\n3,,x,nan\n3,,y,-inf\n")
    history = read_history(tmp_path)
    assert history.name.tolist() == ["x", "y", 'lr/a,"b"  nan', "NA"]
    assert math.isnan(history.value[0]) and history.value.tolist()[1:] == [-math.inf, 0.5, 1.0]
    assert history.epoch.isna().all()


def test_torn_last_line_is_left_out(tmp_path):
    TidyCSV(tmp_path).log_metrics({"a": 0.125, "epoch": 1}, step=1)
    file = tmp_path / "metrics.csv"
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole + whole.splitlines(keepends=True)[1][:cut])
        if cut < len(b"1,1,a,0.125\n"):
            assert rows(read_history(tmp_path)) == [(1, 1, "a", 0.125)]
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert rows(read_history(tmp_path)) == []


def test_resuming_drops_what_comes_after_and_repeats_nothing(tmp_path):
    first = TidyCSV(tmp_path)
    for step in (0, 10, 20, 30):
        first.log_metrics({"a": step / 3, "epoch": step // 10}, step=step)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("30,3,b,0.12")
    again = TidyCSV(tmp_path, resume_step=20)
    assert again.experiment is again
    assert read_history(tmp_path).step.tolist() == [0, 10, 20]
    again.log_metrics({"a": 20 / 3, "late": 1.0, "epoch": 2}, step=20)
    again.log_metrics({"a": 10.0, "epoch": 3}, step=30)
    again.finalize("success")
    again.log_metrics({"risk/test": 2.0, "epoch": 2}, step=30)
    assert rows(read_history(tmp_path)) == [
        (0, 0, "a", 0.0),
        (10, 1, "a", 10 / 3),
        (20, 2, "a", 20 / 3),
        (20, 2, "late", 1.0),
        (30, 3, "a", 10.0),
        (30, 2, "risk/test", 2.0),
    ]
    assert sorted(os.listdir(tmp_path)) == ["metrics.csv"]


def test_a_new_run_starts_a_new_file(tmp_path):
    TidyCSV(tmp_path).log_metrics({"a": 1.0}, step=5)
    TidyCSV(tmp_path).log_metrics({"a": 2.0}, step=0)
    assert rows(read_history(tmp_path).drop(columns="epoch")) == [(0, "a", 2.0)]


def test_history_of_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        read_history(tmp_path)


def test_a_kill_loses_no_earlier_row(tmp_path):
    child = os.fork()
    if not child:
        logger = TidyCSV(tmp_path)
        for step in range(10**9):
            metrics = {f"m{i}": step + i / 7 for i in range(15)} | {"epoch": 0}
            logger.log_metrics(metrics, step)
            (tmp_path / "told").write_text(f"{step}\n")
    told = tmp_path / "told"
    while not told.exists() or int(told.read_text() or 0) < 100:
        time.sleep(0.0137)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    history = read_history(tmp_path)
    last = int(history.step.max())
    assert last >= 100 and last - int(told.read_text() or last) <= 1
    names = [f"m{i}" for i in range(15)]
    per_step = history.groupby("step").name.agg(list)
    assert per_step.index.tolist() == list(range(last + 1))
    assert all(group == names for group in per_step.tolist()[:-1])
    assert (history.value == history.step + history.name.str[1:].astype(int) / 7).all()


def test_with_lightnings_trainer(tmp_path):
    class Model(BoringModel):
        def on_train_epoch_end(self):
            self.log("risk/val", float(self.current_epoch) / 3)

    logger = TidyCSV(tmp_path)
    trainer = L.Trainer(
        max_epochs=3, limit_train_batches=2, limit_val_batches=0, logger=logger,
        accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Model())
    risks = read_history(tmp_path).query("name == 'risk/val'")
    assert risks.epoch.tolist() == [0, 1, 2]
    assert risks.value.tolist() == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-7)


def test_cost_of_a_call(tmp_path):
    logger = TidyCSV(tmp_path)
    metrics = {f"risk/metric{i}": i / 7 for i in range(15)} | {"epoch": 1}
    times = []
    for step in range(300):
        start = time.perf_counter()
        logger.log_metrics(metrics, step)
        times.append(time.perf_counter() - start)
    assert sorted(times)[len(times) // 2] < 100e-6
