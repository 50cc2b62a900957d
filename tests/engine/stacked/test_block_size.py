"""How many members are trained at once."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from truerisk.assemble import assemble
from truerisk.config.compose import compose
from truerisk.engine.precision import choose_device
from truerisk.engine.stacked import block_size
from truerisk.sweeps.launcher.stacked_group import StackedGroup

LINEAR = ["data=iris", "data.batch_size=10", "model=linear", "trainer=cpu"]
GROWTH = """
import re, sys
from pathlib import Path
from omegaconf import OmegaConf
from truerisk.assemble import assemble
from truerisk.config.compose import compose
from truerisk.engine.stacked import block_size
from truerisk.engine.precision import choose_device
from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup

def peak():  # getrusage would begin with the peak of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

cfg = compose(["model=mlp", "model.width=1500", "trainer.max_steps=3", "trainer.max_epochs=-1",
               "data.source.num_samples=1000"])
expected = block_size.estimate_footprint(assemble(cfg), choose_device(cfg.trainer))
cells = [OmegaConf.merge(cfg, {"seed": {"base": i}}) for i in range(12)]
StackedGroup([GroupJob(cells[0], Path(sys.argv[1]) / "first", {})], 1).train()
before = peak()
jobs = [GroupJob(cell, Path(sys.argv[1]) / str(i), {}) for i, cell in enumerate(cells)]
StackedGroup(jobs, 12).train()
print((peak() - before) / 11 / expected)
"""


def of(*overrides):
    cfg = compose([*LINEAR, *overrides])
    return block_size.estimate_footprint(assemble(cfg), choose_device(cfg.trainer))


def suitable(cfg, processes=1):
    return block_size.choose_block_size(assemble(cfg), choose_device(cfg.trainer), processes)


@pytest.mark.parametrize(("precision", "width"), [("32-true", 4), ("64-true", 8)])
def test_what_a_linear_model_keeps(precision, width):
    """f = xA + b on 4 features and 3 classes: 15 weights; 150 samples of 4 inputs and a class.

    Autograd keeps the batch [10, 4], the log-softmax [10, 3], the classes [10], which are whole
    numbers of 8 bytes, and the one number that weighs the mean; nothing of the size of the data.
    """
    kept = 10 * (4 + 3) * width + 10 * 8 + width
    samples = 150 * (4 * width + 8)
    expected = block_size.COPIES * 15 * width + 2 * kept + 2 * samples
    assert of(f"trainer.precision={precision}") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_it_is_what_a_process_grows_by(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert 0.5 < float(done.stdout.splitlines()[-1]) < 1.5


def test_little_memory_makes_small_blocks(jobs, monkeypatch):
    given = [[*LINEAR, "trainer.max_epochs=1", f"seed={i}"] for i in range(5)]
    needs = of()
    monkeypatch.setattr(block_size, "free_memory", lambda device: 2.1 * needs / block_size.SHARE)
    assert [suitable(compose(given[0]), n) for n in (1, 2, 8)] == [2, 1, 1]
    group = StackedGroup(jobs(given))
    group.train()
    assert group.size == 2


def test_a_block_holds_fewer_members_where_they_or_their_layers_are_larger():
    def chosen(*more):
        return suitable(compose(["data=gaussians", "data.batch_size=50", *more]))

    assert chosen("model=linear") == block_size.LARGEST
    by_weights = [chosen("model=mlp", "model.depth=2", f"model.width={w}") for w in (20, 100, 1000)]
    assert by_weights == sorted(by_weights, reverse=True) and by_weights[-1] == block_size.SMALLEST
    many = "data.source.num_samples=100000"
    assert chosen("model=linear", many) == block_size.LARGEST
    assert chosen("model=linear", many, "data.batch_size=full") == block_size.SMALLEST


def test_what_is_free(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:   2048 kB\n")
    assert block_size._read_available(meminfo) == 2**21
    assert block_size._read_available(tmp_path / "none") == math.inf
    assert block_size._read_remaining(tmp_path / "none") == math.inf
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "inactive_file 50\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert block_size._read_remaining(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert block_size._read_remaining(tmp_path) == math.inf
