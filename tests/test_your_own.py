"""``docs/your_own.md``: every file and every command of it, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from truerisk.cli import main
from truerisk.result import load_run

PAGE = Path(__file__).parents[1] / "docs" / "your_own.md"
FENCES = re.compile(r"```(\w+)\n(.*?)```", re.S)
SHORT = ["trainer.max_epochs=1", "figures=false"]


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread, undrawn):
    """An empty folder with the data that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    draw = np.random.default_rng(0)
    rows = [f"{a},{town},{20 + a / 2 + draw.normal():.2f}" for a in range(60) for town in "uv"]
    Path("wages.csv").write_text("\n".join(["age,town,wage", *rows, ""]))
    for animal in ("cat", "dog"):
        (tmp_path / "photos" / animal).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / animal / f"{i}.png")
    x, y = draw.normal(size=(60, 1, 40)).astype("float32"), np.arange(60) % 3
    np.savez("signals.npz", x=x, y=y)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("mine", None)


def test_the_page(here, capsys):
    commands = []
    for kind, text in FENCES.findall(PAGE.read_text()):
        if kind == "sh":
            commands += text.strip().splitlines()
            continue
        name = text.partition("\n")[0].removeprefix("# ")
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:  # mine.py grows from section to section
            stream.write(text if kind == "python" else text.partition("\n")[2])
    assert len(commands) >= 11
    for command in commands:
        program, *args = shlex.split(command)
        assert program == "truerisk"
        if args[0] == "train":
            args += SHORT
        assert main(args) == 0, (command, capsys.readouterr())
    # what the callback prints
    assert re.search(r"^validation risk [\d.]+$", capsys.readouterr().out, re.M)
    assert (here / "predictions.csv").exists() and list((here / "run").glob("model*"))
    f2 = [run for run in here.glob("outputs/*-*/*") if "metric/f2/val" in load_run(run).summary]
    assert len(f2) == 1


def test_commands_of_the_page_on_data(here, capsys):
    """Those of ``docs/data.md`` on tables, which have the columns it speaks of."""
    draw = np.random.default_rng(0)
    rows = [
        f"{draw.normal(170, 9):.1f},{draw.normal(70, 9):.1f},{i % 2},{i % 3 // 2}"
        for i in range(60)
    ]
    Path("t.csv").write_text("\n".join(["height,weight,sweet,sour", *rows, ""]))
    lists = [{"a": i / 7, "labels": [["x"], ["x", "y"], []][i % 3]} for i in range(60)]
    Path("t.jsonl").write_text("\n".join(map(json.dumps, lists)))
    page = PAGE.with_name("data.md").read_text()
    # texts and images have tests of their own commands
    commands = re.findall(r"^    (truerisk .*data=(?:table|hub) .*)$", page, re.M)
    assert len(commands) == 3
    for command in commands:
        args = [*shlex.split(command)[1:], *SHORT]
        assert main(args) == 0, (command, capsys.readouterr())
    runs = [load_run(run) for run in here.glob("outputs/*-*/*")]
    assert sorted(run.task for run in runs) == ["multilabel", "multilabel", "regression"]


def test_every_recipe_takes_ten_lines_or_so():
    """… of Python, of YAML, and of commands, each."""
    sections = PAGE.read_text().split("\n## ")[1:]
    for section in sections:
        for _, text in FENCES.findall(section):
            lines = [line for line in text.splitlines() if line.strip()]
            assert len(lines) <= 11, section.partition("\n")[0]


FAULTY = """
import torch
from torch import nn
from truerisk.metric import Metric


class Nowhere(nn.Module):
    def forward(self, outputs, y):
        losses = nn.functional.cross_entropy(outputs, y, reduction="none")
        return losses.where(torch.rand(()) > 2, torch.nan)


class Share(Metric):
    def compute_values(self, seen):
        return seen["predicted"].double().mean().reshape(1)
"""


def test_a_run_that_ends_before_it_began_names_the_loss_and_promises_no_numbers(here, capsys):
    for group, text in {"loss": "_target_", "metric": "share: {_target_"}.items():
        (here / "conf" / group).mkdir(parents=True)
        name, option = {"loss": ("Nowhere", "lost"), "metric": ("Share}", "share")}[group]
        (here / "conf" / group / f"{option}.yaml").write_text(f"# Mine\n{text}: mine.{name}\n")
    (here / "mine.py").write_text(FAULTY)
    command = ["train", "--config-dir", "conf", "data=iris", *SHORT]
    assert main([*command, "loss=lost"]) == 3
    told = capsys.readouterr().out
    assert "diverged at step 0: the validation risk of loss=lost is not finite; no epoch" in told
    assert "there are no numbers" in told and "the best epoch" not in told
    # a metric that does not say which way is better
    assert main([*command, "metric=[share]", "monitor=metric/share/val"]) == 2
    assert "set higher_is_better = True (or False) in the class Share" in capsys.readouterr().err
