"""Data of one's own that fails: one line of ours, and its author's lines below."""

from __future__ import annotations

import importlib
import sys

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import truerisk
from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.data.given_samples import read_data

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

MODULE = """
import torch
from truerisk.data import Samples

class Inputs:
    shape = (4,)
    reads, last = 0, 10**9

    def __init__(self, last=10**9, broken=-1, size=4):
        self.last, self.broken, self.size = last, broken, size

    def __len__(self):
        return 60

    def __getitem__(self, index):
        self.reads += 1
        if self.reads > self.last or index == self.broken:
            raise OSError("the share is gone")
        return torch.ones(self.size if index == 41 else 4) * index

def made(**given):
    return Samples(Inputs(**given), torch.arange(60) % 2, "classification")

def fails():
    raise KeyError("no column of mine")

def other():
    return torch.utils.data.TensorDataset(torch.ones(3, 2))
"""


@pytest.fixture
def source(tmp_path, monkeypatch, capfd):
    """Train on a source of a module of the user's by the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_source", raising=False)
    (tmp_path / "their_source.py").write_text(MODULE)
    importlib.invalidate_caches()
    node = (
        "# Theirs\n_target_: truerisk.data.RunData\nbatch_size: 20\nworkers: 0\nin_memory: auto\n"
    )
    (tmp_path / "mine" / "data").mkdir(parents=True)

    def train(name, *more, **given):
        numbers = "".join(f"  {key}: {value}\n" for key, value in given.items())
        (tmp_path / "mine" / "data" / "theirs.yaml").write_text(
            f"{node}source:\n  _target_: their_source.{name}\n  _partial_: true\n{numbers}"
        )
        words = ["data=theirs", "model=linear", "regularizer=[]", "trainer.max_epochs=3", *more]
        code = main(["train", "--config-dir", "mine", *words])
        return code, capfd.readouterr().err

    return train


@pytest.mark.parametrize(
    ("name", "given", "first", "line"),
    [
        ("fails", {}, "KeyError: 'no column of mine'", "in fails: raise KeyError("),
        ("made", {"broken": 41}, "sample 41 cannot be read: OSError: the share", "raise OSError("),
        ("made", {"size": 3}, "sample 41 is a Tensor of shape [3], and a tensor [4] is needed", ""),
        ("other", {}, "other returns a TensorDataset, and a source returns truerisk.data.Sam", ""),
    ],
)
def test_a_source_that_fails_is_told_in_its_authors_lines(source, name, given, first, line):
    code, err = source(name, **given)
    assert code == 2 and err.startswith(f"error: data.source: {first}"), err
    assert err.count("\n") == 1 + bool(line)
    if line:
        assert "their_source.py, line " in err and line in err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_fails_while_it_trains(source, workers, tmp_path):
    # 36 to fit the standardization, and as many an epoch, with 12 each for the two other splits
    words = "data.in_memory=false", f"data.workers={workers}"
    code, err = source("made", *words, last=100)
    assert code == 2 and "cannot be read: OSError: the share is gone\n  their_source.py" in err
    assert "Traceback" not in err


def test_a_sweep_tells_it_once_with_the_code_of_a_single_run(source):
    code, err = source("fails", "-m", "seed=1,2,3", "report=false")
    fault = "data.source: KeyError: 'no column of mine'\n  their_source.py, line "
    assert code == 2 and err.startswith(f"error: seed=1, seed=2, seed=3: {fault}")
    assert err.count("KeyError: ") == 1 and len(err.splitlines()) == 2


class Pairs(Dataset):
    """A dataset whose samples a function makes."""

    def __init__(self, make, size=8):
        self.make, self.size = make, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.make(index)


class Module(L.LightningDataModule):
    def __init__(self, loader=None, fault=None):
        super().__init__()
        self.loader, self.fault = loader, fault

    def setup(self, stage):
        if self.fault:
            raise self.fault

    def train_dataloader(self):
        return self.loader


def stuck(index):
    if index == 3:
        raise ValueError("mine")
    return torch.zeros(4), 0


NAMED = Pairs(lambda i: {"x": torch.zeros(4), "mask": torch.ones(4), "y": 0})
MASKED = Pairs(lambda i: (torch.zeros(4), torch.ones(4), 0))
WITHIN = Pairs(lambda i: ({"x": torch.zeros(4), "mask": torch.ones(4)}, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Pairs(stuck), r"sample 3 of Pairs cannot be read: ValueError: mine\n.*in stuck: raise"),
        (MASKED, "sample 0 of Pairs is tuple of 3, and .* such as a mask, to x in one tensor"),
        (NAMED, r"sample 0 of Pairs is dict \(x, mask, y\), and a pair"),
        (WITHIN, r"is tuple of 2 whose inputs are a dict \(x, mask\), and a pair"),
        (Pairs(lambda i: 7), "sample 0 of Pairs is int, and a pair"),
        (Pairs(stuck, size=0), "Pairs has no samples"),
        (Pairs(lambda i: (torch.zeros(3 + i % 2), 0)), r"inputs of shapes \[3\] and \[4\]: all"),
        (Module(), "Module has no train_dataloader"),
        (Module(fault=KeyError("gone")), r"Module.setup fails: KeyError: 'gone'\n.*in setup: rai"),
        (Module(DataLoader(WITHIN)), r"inputs are a dict \(x, mask\), and a pair"),
        (Module(iter([{"x": torch.zeros(2, 4)}])), r"a batch is dict \(x\), and a pair"),
    ],
)
def test_data_given_from_python_that_fails_is_one_message(data, message):
    with pytest.raises(ConfigError, match=f"(?s)^data: .*{message}"):
        read_data(data)


def test_a_callback_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="callbacks: int is no Lightning callback"):
        truerisk.train(
            ["trainer.max_epochs=1", "regularizer=[]"],
            data=(np.ones((40, 2)), np.arange(40) % 2),
            model=nn.Linear(2, 2),
            callbacks=[3],
            folder=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_rare_classes_are_told_of_any_source(source, tmp_path, capfd):
    x, y = np.random.default_rng(0).normal(size=(60, 4)), (np.arange(60) < 6) * 1
    np.savez(tmp_path / "t.npz", x=x, y=y)
    words = ["regularizer=[]", "trainer.max_epochs=1", "figures=false"]
    truerisk.train(words, data=(x, y), model=nn.Linear(4, 2), folder=tmp_path / "given")
    assert main(["train", "data=arrays", "data.source.path=t.npz", "model=linear", *words]) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if "classes of the" in line]
    assert len(told) == 2 and told[0] == told[1] and "0 32 (89 %), 1 4 (11 %)" in told[0]
