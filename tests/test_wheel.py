"""The wheel, outside the checkout: commands, options, and parts of a user's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import truerisk
from truerisk.result import load_run

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(CHECKOUT)], check=True, capture_output=True)
    return next(folder.glob("truerisk-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a command of the installed wheel, from an empty folder."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, capture_output=True)

    def run(*command, path=()):
        places = os.pathsep.join(map(str, (site, *path)))
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    run.site, run.script, run.empty = site, site / "bin" / "truerisk", empty
    return run


def test_every_option_travels_inside(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    conf = {f"truerisk/{p.relative_to(CHECKOUT)}" for p in CHECKOUT.glob("conf/**/*.yaml")}
    code = [
        p for kind in ("py", "h", "html", "css", "js") for p in CHECKOUT.glob(f"src/**/*.{kind}")
    ]
    source = {str(p.relative_to(CHECKOUT / "src")) for p in code}
    assert "truerisk/reports/template/page.html" in source
    assert "truerisk/engine/stacked/member_code/operations.h" in source
    assert "truerisk/conf/train.yaml" in conf
    assert inside == conf | source | {"truerisk/py.typed"}


def test_facts_about_it_travel_too(wheel):
    """Its license, and one version: of the wheel, the changes and the citation."""
    files = zipfile.ZipFile(wheel)
    texts = {Path(n).name: files.read(n).decode() for n in files.namelist() if ".dist-info/" in n}
    assert texts["LICENSE"] == (CHECKOUT / "LICENSE").read_text()
    facts = Parser().parsestr(texts["METADATA"])
    assert (facts["License-Expression"], facts["Version"]) == ("Apache-2.0", truerisk.__version__)
    assert facts["Description-Content-Type"] == "text/markdown"
    newest = re.search(r"^## (\S+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.M)
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert newest and newest[1] == citation["version"] == truerisk.__version__
    assert citation["license"] == "Apache-2.0"


def test_parts_come_from_the_wheel(installed):
    done = installed(installed.script, "parts", "optimizer")
    assert done.returncode == 0 and "  schedule_free_adamw  " in done.stdout, done.stderr
    code = "import truerisk, truerisk.config.parts as p; print(truerisk.__file__, p.conf_dir())"
    for place in installed("-c", code).stdout.split():
        assert Path(place).is_relative_to(installed.site)
    assert installed(installed.script, "--version").stdout.startswith("truerisk 0.")


PART = '''
import torch
from torch import nn


class Rotor(nn.Module):
    """A user's own model."""

    def __init__(self, input_shape, output_size, width):
        super().__init__()
        self.first = nn.Linear(input_shape[0], width)
        self.last = nn.Linear(width, output_size)

    def forward(self, x):
        return self.last(torch.sin(self.first(x)))


class SignDescent(torch.optim.Optimizer):
    """A user's own optimizer: w ← w − lr sign(∇J)."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=group["lr"])
'''
MODEL = "# Sines of mine\n_target_: mine.Rotor\nwidth: 16   # hidden units\n"
OPTIMIZER = "# Sign descent of mine\n_target_: mine.SignDescent\nlr: 0.01   # step length\n"
SESSION = """
import sys
from truerisk.cli import main
for command in {commands}:
    code = main(command)
    if code:
        sys.exit(code)
"""


def test_parts_of_ones_own(installed, tmp_path):
    """A module on the path and YAMLs of its own, then what comes with the package."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(PART)
    for group, text in (("model", MODEL), ("optimizer", OPTIMIZER)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(text)
    conf = f"--config-dir={tmp_path / 'conf'}"
    listed = installed(installed.script, "parts", "model", conf)
    assert "Sines of mine (yours)" in listed.stdout and "mlp" in listed.stdout

    train = ["train", "data=iris", "trainer.max_epochs=30", "scheduler=cosine"]
    own = [conf, "model=own", "optimizer=own", "model.width=8", "hydra.run.dir=own"]
    commands = [[*train, *own], ["evaluate", "own"], [*train, "hydra.run.dir=kept"]]
    done = installed("-c", SESSION.format(commands=commands), path=[tmp_path / "code"])
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in installed.empty.iterdir()) == ["kept", "own"]

    run = load_run(installed.empty / "own")
    assert run.status == "finished" and run.config.model._target_ == "mine.Rotor"
    risk = run.history.query("name == 'risk/train'")["value"]
    assert risk.iloc[-1] < 0.8 * risk.iloc[0]
    assert f"{run.summary['risk/test'].value:.3f}"[:4] in done.stdout
    assert load_run(installed.empty / "kept").config.model._target_ == "truerisk.model.MLP"


def test_a_mistake_in_ones_own_options(installed, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("# Mine\n_target_: nowhere.Rotor\n")
    done = installed(
        installed.script, "train", f"--config-dir={tmp_path}", "model=own", "data=iris"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: model._target_=nowhere.Rotor: ")
    assert list(installed.empty.rglob("status.json")) == [
        p / "status.json" for p in installed.empty.iterdir() if p.name in ("own", "kept")
    ]


def test_hooks_and_workflows_do_what_make_does():
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pins = (CHECKOUT / "constraints.txt").read_text().splitlines()
    wanted = [pin for hook in hooks for pin in hook.get("additional_dependencies", ())]
    assert wanted and set(wanted) <= set(pins)
    targets = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.M))
    for file in (CHECKOUT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text())["jobs"].values()
        commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        assert set(re.findall(r"^make (\w+)", "\n".join(commands), re.M)) <= targets
