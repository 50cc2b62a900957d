"""What a configuration may call."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from truerisk.assemble import make_factory
from truerisk.core.errors import ConfigError


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
