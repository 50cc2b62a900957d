"""What a configuration may call."""

from __future__ import annotations

import functools
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import joblib
import pytest
import torch
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf
from sklearn.preprocessing import StandardScaler

from truerisk.assemble import make_factory
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.sweeps.sweep_cell import hash_config


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "torch.os.system", "command": "true"},
        {"_target_": "builtins.eval", "_args_": ["1"]},
        {"_target_": "torch.nn.Linear", "bias": {"_target_": "subprocess.run", "args": "true"}},
    ],
)
def test_the_standard_library_is_no_part_of_a_recipe(node):
    cfg = OmegaConf.create({"model": node})
    with pytest.raises(ConfigError, match=r"^model.*_target_=\S+ is of Python's standard library"):
        make_factory(cfg.model)


def test_what_lies_below_is_called_and_the_top_is_not(monkeypatch):
    """Without Hydra's warning that no packages were named, where it has them."""
    monkeypatch.setattr(torch.nn, "Half", functools.partial(torch.nn.Linear, 3), raising=False)
    below = {"_target_": "torch.nn.CrossEntropyLoss", "weight": None, "reduction": "${name}"}
    node = {"_target_": "torch.nn.Half", "_args_": [2], "bias": below, "list": [1, "${name}"]}
    cfg = OmegaConf.create({"model": node, "name": "sum"})
    OmegaConf.set_struct(cfg, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factory = make_factory(cfg.model)
    assert factory.func is torch.nn.Half.func and factory.args == (3, 2)
    assert type(factory.keywords["bias"]) is torch.nn.CrossEntropyLoss
    assert factory.keywords["bias"].reduction == "sum"
    assert factory.keywords["list"] == [1, "sum"] and type(factory.keywords["list"]) is list


def make_pair(first, second):
    """Return what a part of a user's may have below it, of other libraries than its own."""
    return SimpleNamespace(first=first, second=second, chosen=torch.relu, scaler=StandardScaler())


@pytest.mark.parametrize("partial", [False, True])
def test_whatever_a_part_names_or_returns_may_be_called(monkeypatch, partial):
    """Under Hydra 1.4 too, which is told what it may call and asks about what that returns."""
    module = ModuleType("own_module")  # whose names are those of functions defined elsewhere
    module.make_pair, module.pick = make_pair, lambda name: getattr(torch, name)
    module.pick.__module__, module.Curve = "own_module", joblib.Memory
    monkeypatch.setitem(sys.modules, "own_module", module)
    nodes = {
        "again": {"_target_": "own_module.make_pair", "first": 1, "second": (2, 3)},
        "function": {"_target_": "own_module.pick", "_args_": ["relu"]},
        "callable": {"_target_": "own_module.Curve", "location": None, "verbose": 0},
        "found": {"_target_": "hydra.utils.get_method", "path": "own_module.make_pair"},
        "type": {"_target_": "hydra.utils.get_object", "_args_": ["torch.float64"]},
    }
    below = {key: {**node, "_partial_": partial} for key, node in nodes.items()}
    cfg = OmegaConf.create({"model": {"_target_": "truerisk.model.MLP", **below}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = make_factory(cfg.model).keywords
        made = {key: value() if partial else value for key, value in made.items()}
    assert made["again"].chosen is made["function"] is torch.relu
    assert list(made["again"].second) == [2, 3]
    assert type(made["callable"]) is joblib.Memory and made["found"] is make_pair
    assert made["type"] is torch.float64


def test_tuples_arrive_as_the_library_keeps_them():
    """OmegaConf 2.4 keeps tuples; before, they are lists, with the same numbers in a run."""
    cfg = compose(["optimizer=adam", "data=iris"])
    cfg.optimizer.betas = (0.5, "${optimizer.eps}")
    kept = OmegaConf.to_container(OmegaConf.create({"x": (0.5, 1e-8)}))["x"]
    assert make_factory(cfg.optimizer).keywords["betas"] == kept
    plain = OmegaConf.to_container(cfg, resolve=True)
    lists = compose(["optimizer=adam", "data=iris", "optimizer.betas=[0.5,1e-8]"])
    assert hash_config(plain) == hash_config(OmegaConf.to_container(lists, resolve=True))


class Notes(Callback):
    heard: ClassVar[list[str]] = []

    def on_run_start(self, config, **kwargs):
        self.heard.append(config.choices.data)

    def on_job_end(self, config, job_return, **kwargs):
        self.heard.append(job_return.status.name)


def test_hydra_calls_callbacks_of_the_users(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "own_notes", SimpleNamespace(Notes=Notes))
    Notes.heard.clear()
    callback = "+hydra.callbacks.notes._target_=own_notes.Notes"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["train", *tiny.overrides, callback, f"hydra.run.dir={tmp_path}/run"]) == 0
    assert Notes.heard == ["iris", "COMPLETED"]
