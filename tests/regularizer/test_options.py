"""The options in conf/regularizer."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import nn

import truerisk.regularizer
from truerisk.core.batch import Batch
from truerisk.regularizer import Regularizer

CONF = Path(__file__).parents[2] / "conf" / "regularizer"
NAMES = sorted(f.stem for f in CONF.glob("[!_]*.yaml"))


def option(name):
    (key, node) = next(iter(yaml.safe_load((CONF / f"{name}.yaml").read_text()).items()))
    assert key == name
    # what a run follows is said at the top of a configuration
    return instantiate({"monitor": "risk/val", "part": node}, _convert_="all")["part"]


def test_every_class_has_an_option():
    classes = {getattr(truerisk.regularizer, n) for n in truerisk.regularizer.__all__}
    parts = {c for c in classes if issubclass(c, Regularizer)} - {Regularizer}
    assert {type(option(name)) for name in NAMES} == parts


@pytest.mark.parametrize("name", NAMES)
def test_yaml_starts_with_one_short_comment_and_explains_every_number(name):
    first, *rest = (CONF / f"{name}.yaml").read_text().splitlines()
    assert first.startswith("# ") and len(first) <= 92
    assert all("#" in line for line in rest[2:])


@pytest.mark.parametrize("name", NAMES)
def test_every_option_goes_through_its_hooks(look, name):
    torch.manual_seed(0)
    regularizer = option(name)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    model = regularizer.edit_model(model)
    x = torch.randn(6, 1, 10)
    if name == "augment":  # for images alone, which a model of another kind reads
        model, x = nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), torch.randn(6, 1, 10, 10)
    batch = regularizer.edit_batch(Batch(x, torch.arange(6) % 3))
    if type(regularizer).penalty is not Regularizer.penalty:
        value = regularizer.penalty(look(model, batch.x, batch.y))
        assert value.shape == () and value.isfinite() and value != 0
        value.backward()
    regularizer.start(4, 2)
    with torch.no_grad():
        regularizer.project(dict(model.named_parameters()))
    for step in range(1, 5):
        regularizer.average(model.state_dict(), step)
    regularizer.load_state_dict(regularizer.state_dict())
    assert model(batch.x).isfinite().all()


def test_importing_the_group_is_light():
    code = (
        "import sys, truerisk.regularizer, truerisk.loss;"
        "print([m for m in ('lightning', 'sklearn', 'pandas', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
