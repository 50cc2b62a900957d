"""``truerisk export``: files that take raw inputs and give what the run's own model gives."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import truerisk
from truerisk.cli import EXPORTS, main
from truerisk.core.errors import ConfigError
from truerisk.export import FORMATS, export_run

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
RECIPES = {
    "mlp": "",
    "numbers": "data=diabetes loss=mse",
    "batch norm, dropout, double": (
        "model.normalization=batch regularizer=[dropout] trainer.precision=64-true"
    ),
    "images": "data=digits model=cnn model.width=4 data.num_train=60 data.batch_size=full",
    "signals": "data=digits model=gru model.width=3 data.num_train=60 data.batch_size=full",
    "half": "trainer.precision=bf16-mixed",
}


def test_the_formats_are_those_of_the_command():
    assert tuple(FORMATS) == EXPORTS


TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_format_gives_the_models_outputs_on_raw_inputs(tiny, tmp_path, recipe, recwarn):
    run = tiny(tmp_path / "run", [*RECIPES[recipe].split(), "trainer.max_epochs=1"])
    for form, written in FORMATS.items():
        if any(p not in sys.modules and not _has(p) for p in written.packages):
            with pytest.raises(ConfigError, match=r"pip install 'truerisk\[export\]'"):
                export_run(run.folder, form)
            continue
        try:
            path, difference = export_run(run.folder, form)
        except ConfigError as error:
            # torch 2.9 cannot trace a GRU so that it takes any number of samples, and it is told
            assert (recipe, form) == ("signals", "onnx") and TORCH < (2, 13)
            assert "cannot be written as onnx for any number of samples" in str(error)
            continue
        assert path == run.folder / f"model{written.suffix}"
        assert difference < (0.04 if recipe == "half" else 1e-4)
        assert not list(run.folder.glob("*.part*"))
        # another number of samples than those it was traced with
        x = torch.randn(3, *run.model.input_shape, dtype=run.model.dtype)
        found = written.read(path, run.model)(x)
        with torch.no_grad():
            bound = 0.04 if recipe == "half" else 1e-5
            assert torch.allclose(found, run.model(x), rtol=0, atol=bound * found.abs().max())
    assert not [told for told in recwarn if "treespec" in str(told.message)]


def _has(package):
    from importlib.util import find_spec

    return find_spec(package) is not None


def test_files_are_read_without_truerisk(tiny, tmp_path):
    run = tiny(tmp_path / "run")
    x = np.random.default_rng(0).normal(5, 2, (4, 4)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    for form in ("torchscript", "torch_export"):
        export_run(run.folder, form)
    code = (
        "import sys, json, torch, numpy as np\n"
        "x = torch.from_numpy(np.load('x.npy'))\n"
        "names = {'class_names': ''}\n"
        "script = torch.jit.load('run/model.ts', _extra_files=names)\n"
        "graph = torch.export.load('run/model.pt2').module()\n"
        "assert torch.allclose(script(x), graph(x), atol=1e-6)\n"
        "assert 'truerisk' not in sys.modules\n"
        "print(json.dumps([json.loads(names['class_names']), script(x).tolist()]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    names, outputs = json.loads(shown)
    assert names == run.model.class_names == ["setosa", "versicolor", "virginica"]
    assert np.allclose(outputs, run.predict(x).outputs, atol=1e-5)


def test_a_state_dict_is_whole_and_starts_another_run(tiny, tmp_path):
    run = tiny(tmp_path / "run")
    path, _ = export_run(run.folder, out=tmp_path / "weights.pt")
    content = torch.load(path, weights_only=True)
    assert {"mean", "scale"} < set(content["state_dict"])
    assert json.loads(content["summary"])["risk/test"]["value"] == run.summary["risk/test"].value
    start = ["initializer=pretrained", f"initializer.path={path}", "optimizer.lr=0"]
    again = tiny(tmp_path / "again", start)
    assert again.summary["risk/test"].value == pytest.approx(
        run.summary["risk/test"].value, rel=1e-6
    )


def test_what_cannot_be_written_is_one_line(tiny, tmp_path, capsys, monkeypatch):
    class Counting(torch.nn.Module):
        """What it gives depends on how many samples there are."""

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) * (2.0 if len(x) == 5 and x.sum() > 1e9 else 1.0)

    x, y = torch.randn(40, 4), torch.arange(40) % 3
    run = truerisk.train(
        ["trainer.max_epochs=1"], folder=tmp_path / "run", model=Counting(), data=(x, y)
    )
    with pytest.raises(ConfigError, match="must be given again"):
        export_run(run.folder)
    tiny(tmp_path / "iris")
    assert main(["export", str(tmp_path / "iris")]) == 0
    assert "model.pt  (outputs differ" in capsys.readouterr().out
    before = sorted(tmp_path.rglob("*"))
    for form in FORMATS:
        for out, why in (("no/a.pt", "No such file or directory"), ("iris", "it is a folder")):
            path = tmp_path / out
            with pytest.raises(ConfigError) as caught:
                export_run(tmp_path / "iris", form, path)
            assert str(caught.value) == f"export: cannot write {path}: {why}"
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["export", str(tmp_path / "iris"), "--out", str(tmp_path / "no" / "a.pt")]) == 2
    truerisk.train(["data=none", "model=rosenbrock", "trainer.max_epochs=1"], folder=tmp_path / "f")
    with pytest.raises(ConfigError, match="minimises a function"):
        export_run(tmp_path / "f")
