"""What is hashed of the files and modules that a configuration names, and what follows of it."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from truerisk.cli import main
from truerisk.config.contents import hash_contents, list_changed
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import collect_runs
from truerisk.run import RunFolder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] == "theirs":
            del sys.modules[name]


def write_table(path, rows=60, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, 3))
    text = "\n".join(f"{a:.4f},{b:.4f},{int(a + c > 0)}" for a, b, c in values)
    path.write_text(f"a,b,y\n{text}\n")


def write_package(folder):
    (folder / "theirs").mkdir()
    (folder / "theirs" / "__init__.py").write_text("")
    (folder / "theirs" / "width.py").write_text("WIDTH = 4\n")
    (folder / "theirs" / "net.py").write_text(
        "from torch import nn\n\nfrom .width import WIDTH\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, input_shape, output_size):\n"
        "        super().__init__()\n"
        "        self.a = nn.Linear(input_shape[0], WIDTH)\n"
        "        self.b = nn.Linear(WIDTH, output_size)\n\n"
        "    def forward(self, x):\n"
        "        return self.b(self.a(x).tanh())\n"
    )
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "model" / "net.yaml").write_text("# a net\n_target_: theirs.net.Net\n")


def test_files_folders_and_modules_are_hashed(here):
    (here / "a.csv").write_text("x,y\n1,2\n")
    (here / "images").mkdir()
    (here / "images" / "1.png").write_bytes(b"1")
    write_package(here)
    config = {
        "data": {"source": {"path": "a.csv", "more": ["images/"]}, "_target_": "truerisk.data.X"},
        "model": {"_target_": "theirs.net.Net"},
        "optimizer": {"_target_": "torch.optim.SGD"},
        "choices": {"data": "a.csv"},
        "logger": {"csv": {"path": "theirs/net.py"}},
    }
    before = hash_contents(config)
    assert list(before) == ["a.csv", "images/", "theirs.net"]
    content = b"8" + b"x,y\n1,2\n"  # its size, then its bytes
    assert before["a.csv"] == hashlib.sha256(content).hexdigest()[:16]
    (here / "images" / "1.png").rename(here / "images" / "2.png")
    (here / "theirs" / "width.py").write_text("WIDTH = 5\n")  # which net.py imports
    assert list_changed(before, hash_contents(config)) == ["images/", "theirs.net"]
    (here / "theirs" / "width.py").write_text("WIDTH = 4\n")
    (here / "a.csv").write_text("x,y\n1,3\n")
    assert list_changed(before, hash_contents(config)) == ["a.csv", "images/"]


def test_a_large_file_is_sampled(here, monkeypatch):
    monkeypatch.setattr("truerisk.config.contents.LARGE", 1000)
    monkeypatch.setattr("truerisk.config.contents.CHUNK", 10)
    content = bytearray(2000)
    digests = []
    for at in (None, 0, 1999):
        if at is not None:
            content[at] += 1
        (here / "a.bin").write_bytes(content)
        digests.append(hash_contents({"path": "a.bin"})["a.bin"])
    assert len(set(digests)) == 3


def told(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_cells_of_an_edited_file_or_class_are_others(tiny, here, capsys):
    """... and an unchanged one is found again; the report keeps both apart."""
    write_package(here)
    write_table(here / "t.csv")
    own = ["data=table", "data.source.path=t.csv", "data.source.target=y", "model=net"]
    small = ["trainer.max_epochs=1", "data.batch_size=20", "checkpoint_seconds=0"]
    sweep = ["-m", "--config-dir=mine", *own, *small, "seed=1,2", "study=s", "report=false"]

    def folders():
        return sorted(path.name for path in (here / "outputs" / "s").glob("seed*"))

    assert main(["train", *sweep]) == 0
    first = folders()
    facts = RunFolder(here / "outputs" / "s" / first[0]).metadata()
    assert list(facts["contents"]) == ["t.csv", "theirs.net"]
    write_table(here / "t.csv", seed=1)
    capsys.readouterr()
    assert main(["plan", *sweep]) == 0
    assert "2 cells: 2 to run" in (out := capsys.readouterr().out) and "t.csv has changed" in out
    assert main(["train", *sweep, "hydra/launcher=vectorized"]) == 0
    assert "t.csv has changed since 2 cells of this study ran" in told(capsys)
    assert len(second := folders()) == 4 and set(first) < set(second)
    (here / "theirs" / "width.py").write_text("WIDTH = 3\n")
    assert main(["train", *sweep]) == 0
    assert "theirs.net has changed" in told(capsys) and len(third := folders()) == 6
    (here / "theirs" / "width.py").write_text("WIDTH = 4\n")
    assert main(["train", *sweep]) == 0 and folders() == third
    write_table(here / "t.csv")
    assert main(["train", *sweep]) == 0 and folders() == third
    assert "changed" not in told(capsys)
    study = build_study(collect_runs([here / "outputs" / "s"]))
    # another table is another problem, another net another recipe
    assert sorted(len(problem.recipes) for problem in study.problems) == [1, 2]
    assert study.repeated == 0 and len(study.runs) == 6


def test_evaluating_and_resuming_tell_of_an_edited_file(tiny, here, capsys):
    write_table(here / "t.csv")
    own = ["data=table", "data.source.path=t.csv", "data.source.target=y"]
    small = ["trainer.max_epochs=2", "data.batch_size=20", "checkpoint_seconds=0"]
    assert main(["train", *own, *small, "hydra.run.dir=run"]) == 0
    assert main(["evaluate", "run"]) == 0 and "changed" not in told(capsys)
    write_table(here / "t.csv", seed=1)
    assert main(["evaluate", "run"]) == 0
    assert "t.csv has changed since the run was trained" in told(capsys)
    status = here / "run" / "status.json"
    status.write_text(status.read_text().replace("finished", "interrupted"))
    assert main(["train", "resume=run"]) == 0
    assert "t.csv changed after the run in" in told(capsys)
