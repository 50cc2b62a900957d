"""YAML is read as OmegaConf reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from truerisk.config.compose import compose
from truerisk.core.yaml_files import YamlLoader, format_yaml

SCALARS = """
1e-3 1E5 -2e+3 +4e2 .5e1 5.e-2 1e 1e3x 12e4567 1.5 -.5 1_000 1_0.5 0x10 010 0b11 7 -7 .inf -.inf
12:30:00 1:30.5 2020-01-31 2020-01-31T10:00:00 true True yes on no OFF null ~ ${seed.base} x
"""


@pytest.mark.parametrize("text", SCALARS.split())
def test_a_value_in_a_file(text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"key: {text}\n")
    expected = OmegaConf.to_container(OmegaConf.load(file))["key"]
    found = yaml.load(file.read_text(), YamlLoader)["key"]
    assert (type(found), found) == (type(expected), expected)


def test_what_omegaconf_writes(tmp_path):
    values = [
        1e-5,
        1e30,
        "1e-3",
        "2020-01-31",
        "yes",
        "null",
        "07",
        None,
        True,
        Path("a/b"),
        [],
        {},
    ]
    file = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create({str(i): value for i, value in enumerate(values)}), file)
    assert list(yaml.load(file.read_text(), YamlLoader).values()) == values


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_a_path_that_another_python_wrote(module):
    text = f"file: !!python/object/apply:{module}.PosixPath [a, b.csv]"
    assert yaml.load(text, YamlLoader) == {"file": Path("a/b.csv")}


@pytest.mark.parametrize("option", ["data=arrays", "model=gpt", "optimizer=muon", "loss=quantile"])
def test_configurations_are_written_as_omegaconf_writes_them(option):
    cfg = compose([option])
    assert format_yaml(cfg) == OmegaConf.to_yaml(cfg, resolve=True)


def test_texts_are_written_as_texts():
    texts = [*SCALARS.split(), "a: b", "it's", "two\nlines", "ü", "", " a", "-", "x " * 90, "y"]
    texts = [text for text in texts if "$" not in text]
    assert yaml.load(format_yaml(OmegaConf.create({"keys": texts})), YamlLoader) == {"keys": texts}


def test_a_key_that_stands_twice_is_told_with_its_line():
    with pytest.raises(yaml.YAMLError, match=r"(?s)the key lr stands twice.*line 3, column 3"):
        yaml.load("optimizer:\n  lr: 1\n  lr: 2\n", YamlLoader)
