"""``truerisk evaluate``: the same predictor, measured again or on other data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

RECIPES = {
    "plain": "",
    "batch norm, ema": "model.normalization=batch regularizer=[ema,dropout]",
    "spectral norm": "regularizer=[spectral_norm] optimizer=muon",
    "schedule-free": "optimizer=schedule_free_adamw regularizer=[mixup]",
    "double": "trainer.precision=64-true",
    "bfloat16": "trainer.precision=bf16-mixed",
    "swa": "regularizer=[swa] model.normalization=batch regularizer.swa.start=0",
    "noisy labels": "data.label_noise=0.2",
    "few samples": "data.num_train=20 seed=5",
    "read in pieces": "data.in_memory=false",
    "signals": "data=mnist1d model=cnn1d data.num_train=60 trainer.max_epochs=1",
    "known P": "data=gaussians risk.true_stderr=0.1",
    "regression": "data=diabetes loss=huber",
    "hinge": "data=breast_cancer loss=hinge",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_runs_own_numbers(tiny, tmp_path, recipe):
    run = tiny(tmp_path / "run", RECIPES[recipe].split())
    again = evaluate(tmp_path / "run").summary
    assert {"risk/train", "risk/val", "risk/test", "risk/gap"} <= again.keys() == run.summary.keys()
    assert {k: m[:2] for k, m in again.items()} == {k: m[:2] for k, m in run.summary.items()}


def test_an_evaluation_changes_nothing(tiny, tmp_path):
    tiny(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    torch.manual_seed(3)
    first = torch.rand(3)
    torch.manual_seed(3)
    evaluate(tmp_path / "run")
    assert torch.equal(torch.rand(3), first)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_without_label_noise(tiny, tmp_path):
    run = tiny(tmp_path / "run", ["data.label_noise=0.3", "optimizer.lr=0.03"])
    clean = evaluate(tmp_path / "run", ["data.label_noise=0"]).summary
    assert clean["risk/test"].value == run.summary["risk/test"].value
    assert clean["error/train"].value < run.summary["error/train"].value - 0.1


def write(path, seed=0, names=("a", "b", "c"), n=40, width=4):
    draw = np.random.default_rng(seed)
    x = draw.normal(50, 7, (n, width)).astype("float32")
    np.savez(path, x=x, y=np.array(names)[draw.integers(len(names), size=n)])
    return x


def test_on_new_data_with_the_runs_own_standardization(tiny, tmp_path):
    x = write(tmp_path / "old.npz")
    new = write(tmp_path / "new.npz", seed=1, names=("c", "b"))
    old = ["data=arrays", f"data.source.path={tmp_path / 'old.npz'}", "data.batch_size=8"]
    run = tiny(tmp_path / "run", old)
    other = ["data=arrays", f"data.source.path={tmp_path / 'new.npz'}", "data.test=all"]
    found = evaluate(tmp_path / "run", other).summary
    assert found.keys() == {"risk/test", "error/test"}

    labels = np.load(tmp_path / "new.npz")["y"]
    y = torch.tensor([["a", "b", "c"].index(label) for label in labels])
    fitted = torch.load(tmp_path / "run/checkpoints/best.ckpt")["data"]["standardizer"]
    mean, deviation = fitted["mean"].reshape(-1), fitted["scale"].reshape(-1)
    assert torch.allclose(mean, torch.tensor(x.mean(0)).double(), rtol=0.05)
    with torch.no_grad():
        outputs = run.network(((torch.tensor(new) - mean) / deviation).float())
        assert torch.allclose(run.model(torch.tensor(new)), outputs, rtol=1e-5)
    assert found["risk/test"].value == pytest.approx(cross_entropy(outputs, y).item(), rel=1e-6)
    wrong = (outputs.argmax(1) != y).float().mean().item()
    assert found["error/test"].value == pytest.approx(wrong)


def test_on_another_trainer(tiny, tmp_path):
    run = tiny(tmp_path / "run")
    near = evaluate(tmp_path / "run", ["trainer.precision=bf16-mixed"]).summary["risk/test"].value
    assert 0 < abs(near - run.summary["risk/test"].value) < 0.05
    same = evaluate(tmp_path / "run", ["trainer=cpu", "trainer.precision=32-true"]).summary
    assert same["risk/test"].value == run.summary["risk/test"].value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.label_nose=0"], r"data\.label_nose.*did you mean 'label_noise'"),
        (["data=irsi"], "did you mean 'iris'"),
        (["data=wine"], "class 'class_0' is not among the classes the model was trained on"),
        (["data=diabetes"], "trained on data with task classification"),
        (["data.test=all"], None),
        (["data=arrays", "data.source.path=nowhere.npz"], "nowhere.npz"),
        (["trainer.precision=16-true"], "16-true gives NaN"),
        (["trainer=gpu"], "torch finds none"),
        (["data.batch_size=many"], "data.batch_size"),
    ],
)
def test_refused(tiny, tmp_path, overrides, message):
    if message == "torch finds none" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    tiny(tmp_path / "run")
    if message is None:
        assert evaluate(tmp_path / "run", overrides).summary.keys() == {"risk/test", "error/test"}
        return
    with pytest.raises(ConfigError, match=message):
        evaluate(tmp_path / "run", overrides)


def test_data_the_model_does_not_fit(tiny, tmp_path):
    write(tmp_path / "old.npz")
    write(tmp_path / "new.npz", names=("a", "d"))
    tiny(tmp_path / "run", ["data=arrays", f"data.source.path={tmp_path / 'old.npz'}"])
    new = [f"data.source.path={tmp_path / 'new.npz'}", "data.test=all"]
    with pytest.raises(ConfigError, match="class 'd' is not among the classes"):
        evaluate(tmp_path / "run", new)
    write(tmp_path / "new.npz", width=5)
    with pytest.raises(ConfigError, match=r"with input_shape \(4,\), this one has \(5,\)"):
        evaluate(tmp_path / "run", new)


def test_without_weights(tiny, tmp_path):
    tiny(tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    best.write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"best\.ckpt is not a readable checkpoint"):
        evaluate(tmp_path / "run")
    best.unlink()
    with pytest.raises(ConfigError, match=r"best\.ckpt does not exist"):
        evaluate(tmp_path / "run")


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        evaluate(tmp_path)


def test_on_the_command_line(tiny, tmp_path, capsys):
    run = tiny(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "data.label_noise=0.1"]) == 0
    out, err = capsys.readouterr()
    assert "best weights of" in out and f"{run.summary['risk/test'].value:.3f}"[:4] in out
    for wrong, named in (
        (["optimizer.lr=1"], "optimizer.lr=1: an evaluation takes overrides of data, trainer"),
        (["model=cnn"], "model=cnn: an evaluation takes overrides of data, trainer"),
        (["data.lable_noise=0"], "did you mean 'label_noise'"),
    ):
        assert main(["evaluate", str(tmp_path / "run"), *wrong]) == 2
        out, err = capsys.readouterr()
        assert named in err and err.count("\n") == 1 and "epoch" not in out
