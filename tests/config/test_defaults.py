"""A number that stands in conf/ and in a signature is the same in both, or meant to differ."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from truerisk.config.options import Options

CONF = Path(__file__).parents[2] / "conf"
RULES = "an option spares biases and norm layers; from Python, no rule is the plainer start"
DELIBERATE = {
    **{
        f"regularizer/{name}.yaml: {name}.rules": RULES
        for name in ("elastic_net", "group_lasso", "l1", "l2", "max_norm", "orthogonality")
    },
    "regularizer/early_stopping.yaml: early_stopping.monitor": "it follows what the run does",
    "initializer/*.yaml: bias": "an option says what it does to biases; from Python, they are kept",
    "model/softmax_loss.yaml: target": "goes with the option's start: not its largest logit",
    "optimizer/muon.yaml: lr": "the class has Jordan's 0.02, for far larger networks",
    "optimizer/shampoo.yaml: lr": "goes with the option's other numbers",
    "optimizer/shampoo.yaml: every": "the option saves time; the class is the paper's algorithm",
}
"""Where an option's number is not the class's own, and why."""


def targets(node, path=()):
    """Every node with a ``_target_`` of ours, and where it stands."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("truerisk."):
            yield path, node
        for key, value in node.items():
            yield from targets(value, (*path, key))


def numbers():
    """Each key of an option that has a default in the signature of its target, with both values."""
    for file in sorted(CONF.rglob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        for path, node in targets(config):
            parameters = inspect.signature(get_object(node["_target_"])).parameters
            for name, parameter in parameters.items():
                value, default = node.get(name, parameter.empty), parameter.default
                if parameter.empty in (value, default) or isinstance(value, dict):
                    continue
                if isinstance(default, tuple):
                    default = list(default)
                key = ".".join((*path, name))
                yield f"{file.relative_to(CONF)}: {key}", value, default


NUMBERS = {place: (value, default) for place, value, default in numbers()}
GENERAL = {f"initializer/{p.name}: bias": "initializer/*.yaml: bias" for p in CONF.glob("*/*.yaml")}


def differ(place):
    value, default = NUMBERS[place]
    return value != default or type(value) is not type(default)


def test_there_are_numbers_to_compare():
    assert len(NUMBERS) > 150


@pytest.mark.parametrize("place", NUMBERS)
def test_an_option_has_the_number_of_the_signature(place):
    value, default = NUMBERS[place]
    if GENERAL.get(place, place) not in DELIBERATE:
        assert not differ(place), f"{place} is {value!r}, in the signature {default!r}"


def test_what_differs_on_purpose_does_differ():
    found = {GENERAL.get(place, place) for place in NUMBERS if differ(place)}
    assert found == set(DELIBERATE)


def fields(options, path=()):
    """Every field of a dataclass that has a default, and of those inside it."""
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            yield from fields(types[field.name], (*path, field.name))
        elif field.default is not dataclasses.MISSING:
            yield ".".join((*path, field.name)), field.default


@pytest.mark.parametrize(("key", "default"), [*fields(Options)])
def test_train_yaml_has_the_numbers_of_the_types(key, default):
    value = OmegaConf.select(OmegaConf.load(CONF / "train.yaml"), key)
    assert value == default and type(value) is type(default)
