"""Two processes compute what one computes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from truerisk import load_run
from truerisk.config.parts import conf_dir, list_options
from truerisk.core.errors import ConfigError

EYES = [name for name in list_options("diagnostics", (conf_dir(),)) if name != "attention"]
"""All that can look at a recurrent network."""

# 106 training samples in micro-batches of 7: four in one process, three in the other; the last
# step of an epoch takes 7 and 1, so that one process has nothing in it. Two blocks of training
# samples are measured unevenly as well, and the run ends in mid-epoch.
RECIPE = [
    "data=wine",
    "data.batch_size=7",
    "model=rnn",
    "model.width=4",
    "optimizer=momentum",
    "step.accumulate=2",
    "step.clip.norm=0.4",
    "scheduler=cosine",
    "scheduler.warmup=4",
    "regularizer=[l2,entropy,ema]",
    "risk.train_samples=53",
    "trainer.precision=64-true",
    "trainer.max_epochs=5",
    "trainer.max_steps=36",
    "metric=[roc_auc,f1_per_class,torchmetrics]",
    "metric.torchmetrics.metric=JaccardIndex",
    "monitor=metric/roc_auc/val",
    f"diagnostics=[{','.join(EYES)}]",
    "diagnostics.curvature.every.epochs=2",
]


def show(*arguments):
    """What a command prints."""
    command = [sys.executable, "-m", "truerisk", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp") / "run"
    processes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    screen = show("train", f"hydra.run.dir={folder}", *RECIPE, *processes)
    return SimpleNamespace(result=load_run(folder), screen=screen)


@pytest.fixture(scope="module")
def one(run):
    return run(*RECIPE)


def test_all_that_was_logged_is_the_same(one, two):
    mine, theirs = one.history, two.result.history
    key = ["step", "epoch", "name"]
    both = mine.merge(theirs, on=key, how="outer", suffixes=("", "_2"))
    assert len(both) == len(mine) == len(theirs) > 100
    assert {"batch/loss", "grad_norm", "lr/0", "penalty/entropy", "error/val"} <= set(both.name)
    assert {"gradient_flow/ratio", "update_size/distance", "numerics/zero"} <= set(both.name)
    assert {"curvature/lambda_max", "taylor/second", "flatness/sam"} <= set(both.name)
    assert set(EYES) <= {n.partition("/")[0] for n in both.name}
    searched = both.name == "flatness/box"  # a maximum, found by a search that rounding leads
    near, exact = (  # numpy before 2 takes no tolerance for each value
        np.isclose(both.value_2, both.value, rtol=within, atol=within, equal_nan=True)
        for within in (1e-3, 1e-10)
    )
    close = np.where(searched, near, exact)
    assert close.all(), both[~close]


def test_summary_and_weights_are_the_same(one, two):
    assert two.result.status == "finished"
    mine, theirs = one.summary, two.result.summary
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert theirs[name] == pytest.approx(mine[name], abs=1e-10)
    states = [r.model.state_dict() for r in (one, two.result)]
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, rtol=0, atol=1e-10)


def test_one_process_speaks(two):
    """One table, and one summary of each epoch."""
    assert two.screen.count("risk ± s.e.") == 1


def test_one_process_speaks_of_an_evaluation(two):
    assert show("evaluate", str(two.result.folder)).count("risk ± s.e.") == 1


SHARDED = """
import sys

from truerisk import train
from truerisk.core.errors import ConfigError

for name in ("momentum", "sam", "soap", "lbfgs"):
    given = ["data=iris", "trainer.max_epochs=2", f"optimizer={name}", "figures=false"]
    try:
        train([*given, "trainer=fsdp", "trainer.devices=1"], folder=f"{sys.argv[1]}/{name}")
    except ConfigError as error:
        print(name, error)
"""
"""Runs of optimizers whose every parameter is a shard, of one process."""


def test_optimizers_step_on_shards_or_are_refused(run, tmp_path):
    """torch's fused SGD and copies of lists know no shards; SOAP and L-BFGS cannot do without."""
    command = [sys.executable, "-c", SHARDED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    soap, lbfgs = [line for line in done.stdout.splitlines() if "use trainer=ddp" in line]
    assert soap.startswith("soap SOAP cannot step on parts")
    assert lbfgs.startswith("lbfgs LBFGS needs whole")
    for name in ("momentum", "sam"):
        alone = run("data=iris", "trainer.max_epochs=2", f"optimizer={name}")
        assert load_run(tmp_path / name).summary["risk/train"].value == pytest.approx(
            alone.summary["risk/train"].value, rel=1e-5
        )


def test_batch_norm_over_processes_of_a_cpu_is_refused():
    """torch's `SyncBatchNorm` raises there in the first step."""
    from torch import nn

    from truerisk.engine.host import FabricHost

    host = SimpleNamespace(device=torch.device("cpu"))
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match=r"'1' is a batch norm.*trainer\.sync_batchnorm=false"):
        FabricHost.refuse_norms(host, model)
    FabricHost.refuse_norms(SimpleNamespace(device=torch.device("cuda")), model)
    FabricHost.refuse_norms(host, model[:1])


def test_a_run_of_two_processes_is_lengthened(run, tmp_path):
    """The second process finds the new length written, by the first."""
    given = ["data=iris", "optimizer=momentum", "trainer.precision=64-true"]
    processes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    show("train", f"hydra.run.dir={tmp_path}", *given, *processes, "trainer.max_epochs=1")
    show("train", f"resume={tmp_path}", "trainer.max_epochs=2")
    longer, whole = load_run(tmp_path), run(*given, "trainer.max_epochs=2")
    for name, value in whole.summary.items():
        assert longer.summary[name] == pytest.approx(value, abs=1e-10), name
