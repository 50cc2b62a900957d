import re
import subprocess
import sys

import pytest

from truerisk.config.parts import (
    conf_dir,
    format_listing,
    list_groups,
    list_options,
    option_folders,
    read_summary,
)
from truerisk.core.errors import ConfigError

GROUPS = (
    "data model loss metric initializer optimizer param_groups scheduler regularizer trainer "
    "parametrization diagnostics logger"
)


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "odd.yaml").write_text("# An odd model\n_target_: a.B\n")
    (tmp_path / "model" / "_base.yaml").write_text("# hidden\n")
    (tmp_path / "model" / "deep" / "er.yaml").write_text("# Nested\n")
    return tmp_path


def test_every_group_is_found():
    assert set(list_groups(option_folders())) == {
        *GROUPS.split(),
        "experiment",
        "hydra/launcher",
        "hydra/sweeper",
    }


def test_every_option_says_in_one_line_what_it_is():
    texts = {
        f: read_summary(f)
        for g in list_groups(option_folders())
        for f in list_options(g, option_folders()).values()
    }
    assert [f for f, text in texts.items() if not 10 <= len(text) <= 90] == []


def test_summary_skips_directives(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("\n# @package _global_\n# What it is\n# and more\nlr: 1\n")
    assert read_summary(file) == "What it is"
    file.write_text("lr: 1 # no\n# late\n")
    assert read_summary(file) == ""


def test_hidden_files_are_no_options(mine):
    assert "_split" not in list_options("data", option_folders())
    assert list(list_options("model", [mine])) == ["odd"]


def test_the_users_options_are_marked_and_nested_groups_listed(mine):
    text = format_listing("model", str(mine), width=100)
    assert re.search(r"^  odd +An odd model \(yours\)$", text, re.M)
    assert "\n\nmodel/deep\n  er  Nested (yours)" in text
    assert "(yours)" not in format_listing("model")


def test_unknown_group_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'optimizer'"):
        format_listing("optimiser")


@pytest.mark.parametrize("width", [40, 60, 100])
def test_lines_fit_the_terminal(width):
    assert max(map(len, format_listing(width=width).splitlines())) <= width


def test_wrong_config_dir_names_the_nearest(mine):
    with pytest.raises(ConfigError, match=r"--config-dir.*did you mean 'model'"):
        option_folders(mine / "modle")


def test_neither_torch_nor_hydra_is_imported():
    code = (
        "import sys; from truerisk.cli import main; main(['parts']);"
        "sys.exit(bool({'torch', 'hydra', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n{group}\n" in f"\n{done.stdout}" for group in GROUPS.split())


def test_the_package_finds_its_own_options():
    assert (conf_dir() / "train.yaml").is_file()
