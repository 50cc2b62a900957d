"""Runs that begin with the weights of others, parts of them frozen."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import truerisk
from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.initializer import Pretrained
from truerisk.initializer.pretrained import match_names, read_state

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
NORMED = ["model.normalization=batch", "regularizer=[]"]


def from_run(folder, *more):
    return ["initializer=pretrained", f"initializer.path={folder}", *more]


def first_weights(run):
    """The weights that a run of no steps worth mentioning ends with."""
    return run.network.state_dict()


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_run_begins_where_another_has_ended(tiny, tmp_path, weights):
    first = tiny(tmp_path / "first", NORMED)
    start = from_run(first.folder, f"initializer.weights={weights}", "optimizer.lr=0")
    second = tiny(tmp_path / "second", [*start, "model.normalization=batch", "regularizer=[]"])
    state = torch.load(getattr(first.run, weights), weights_only=True)
    state = state["state"] if weights == "best" else state["state_dict"]
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    for name, parameter in second.network.named_parameters():
        assert torch.equal(parameter, state[name]), name
    values = second.history[(second.history.name == "risk/val") & (second.history.epoch == 0)].value
    if weights == "best":
        assert float(values.iloc[0]) == pytest.approx(first.summary["risk/val"].value, rel=1e-6)


def test_every_form_of_a_file(tmp_path):
    layer = nn.Linear(3, 2)
    state = {f"model.{k}": v for k, v in layer.state_dict().items()}
    torch.save(layer.state_dict(), tmp_path / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "lightning.ckpt")
    torch.save(
        {"model_state_dict": {"module." + k: v for k, v in state.items()}}, tmp_path / "ddp.pth"
    )
    for name in ("plain.pt", "lightning.ckpt", "ddp.pth"):
        mine = nn.Sequential(nn.Linear(3, 2))
        Pretrained(str(tmp_path / name))(mine)
        assert torch.equal(mine[0].weight, layer.weight) and torch.equal(mine[0].bias, layer.bias)
    torch.save(layer, tmp_path / "pickle.pt")
    for path, message in {
        "pickle.pt": "cannot be read as weights alone",
        "none.pt": "there is no ",
        "weights.safetensors": "there is no ",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_state(str(tmp_path / path))
    torch.save({"a": 1}, tmp_path / "empty.pt")
    with pytest.raises(ConfigError, match="no tensors by name"):
        read_state(str(tmp_path / "empty.pt"))


def test_safetensors(tmp_path, monkeypatch):
    save = pytest.importorskip("safetensors.torch")
    layer = nn.Linear(3, 2)
    save.save_file(layer.state_dict(), str(tmp_path / "a.safetensors"))
    assert torch.equal(read_state(str(tmp_path / "a.safetensors"))["weight"], layer.weight)
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_state(str(tmp_path / "b.safetensors"))


def test_without_safetensors_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"pip install 'truerisk\[export\]'"):
        read_state(str(tmp_path / "a.safetensors"))


def test_what_did_not_fit_is_named(tiny, tmp_path, capsys):
    first = tiny(tmp_path / "first")
    shown = from_run(first.folder)
    second = tiny(tmp_path / "second", ["data=breast_cancer", *shown, "model.depth=3"])
    out = capsys.readouterr().out
    assert "of another shape there, so as the model was built: " in out
    assert "[8, 4] instead of [8, 30]" in out and "not in it, so as the model was built: " in out
    assert second.status == "finished"
    with pytest.raises(ConfigError, match="nothing in it fits the model"):
        Pretrained(str(first.folder))(nn.Linear(50, 7))


def test_frozen_weights_and_statistics_stay(tiny, tmp_path, capsys):
    first = tiny(tmp_path / "first", NORMED)
    rules = "initializer.freeze=[{name: output, freeze: false}, {}]"
    run = tiny(tmp_path / "run", [*from_run(first.folder, rules), *NORMED])
    assert "frozen: " in capsys.readouterr().out
    before = torch.load(first.run.best, weights_only=True)["state"]
    after = torch.load(run.run.last, weights_only=True)["state_dict"]
    output = [name for name in before if name.startswith("output")]
    assert output, list(before)
    for name, tensor in before.items():
        same = torch.equal(after[f"model.{name}"], tensor)
        assert same == (name not in output), name


def test_rules_are_ordered_and_their_mistakes_are_told():
    def build(*rules):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        Pretrained.freeze_parameters(initializer := Pretrained("x", freeze=rules), model)
        return model, initializer

    model, initializer = build({"name": "^0"}, {"max_ndim": 1, "freeze": True})
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["0.weight", "0.bias", "1.weight", "1.bias", "2.bias"]
    assert not model[1].training and model[2].training
    assert initializer.notes == ["frozen: 11 of 13 parameters"]
    model, _ = build("^1.bias")
    assert model[1].training  # its scale still trains
    with pytest.raises(ConfigError, match=r"initializer\.freeze: .*matches no parameter"):
        build({"name": "^9"})
    with pytest.raises(ConfigError, match="not 'lr'"):
        Pretrained("x", freeze=[{"name": "a", "lr": 1}])
    with pytest.raises(ConfigError, match=r"initializer\.path is not set"):
        Pretrained()


def test_names_that_differ_in_what_stands_before_them():
    own = {"backbone.a.w": torch.zeros(2), "backbone.b.w": torch.zeros(2), "head.w": torch.zeros(1)}
    found = match_names({"a.w": torch.ones(2), "b.w": torch.ones(2), "head.w": torch.ones(9)}, own)
    assert sorted(found) == ["backbone.a.w", "backbone.b.w", "backbone.head.w"]
    same = match_names({name: tensor for name, tensor in own.items()}, own)
    assert sorted(same) == sorted(own)


def test_a_sweep_of_frozen_runs_is_what_each_is_alone(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = tiny(tmp_path / "first")
    rules = "initializer.freeze=[{name: output, freeze: false}, {}]"
    overrides = [*tiny.overrides, *from_run(first.folder), rules, "figures=false", "report=false"]
    code = main(
        ["train", "-m", *overrides, "optimizer.lr=0.01,0.1", "hydra/launcher=vectorized", "study=s"]
    )
    assert code == 0
    before = torch.load(first.run.best, weights_only=True)["state"]
    for folder in sorted((tmp_path / "outputs" / "s").glob("*-*")):
        run = truerisk.load_run(folder)
        rate = f"optimizer.lr={run.config.optimizer.lr}"
        alone = tiny(tmp_path / folder.name, [*from_run(first.folder), rules, rate])
        assert run.summary["risk/test"].value == pytest.approx(
            alone.summary["risk/test"].value, rel=1e-5
        )
        after = torch.load(run.run.last, weights_only=True)["state_dict"]
        kept = [n for n in before if torch.equal(after[f"model.{n}"], before[n])]
        assert kept == [n for n in before if not n.startswith("output")]
    capsys.readouterr()


def test_weights_that_have_seen_the_test_samples_are_refused(tiny, tmp_path):
    """A memorised table of coin flips would be right on the test rows of another split."""
    rows = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).tolist()
    lines = [f"{a},{b},{c},{k % 2}" for k, (a, b, c) in enumerate(rows)]
    for name in ("t.csv", "copy.csv"):
        (tmp_path / name).write_text("\n".join(["a,b,c,y", *lines]))
    table = ["data=table", f"data.source.path={tmp_path}/t.csv", "data.source.target=y"]
    first = tiny(tmp_path / "first", table)
    start = [*from_run(first.folder), *table]
    copy = [*start, f"data.source.path={tmp_path}/copy.csv"]
    other = [*from_run(first.run.best), *table]
    message = "was trained on .* of the 16 val samples .*seed.data=1853398634"
    seeded = [[*one, "seed=1"] for one in (start, copy, other)]
    for more in (*seeded, [*start, "data.test=30"]):
        with pytest.raises(ConfigError, match="was trained on"):
            tiny(tmp_path / "leak", more)
    with pytest.raises(ConfigError, match=message):
        tiny(tmp_path / "leak", [*start, "seed.data=5"])
    tiny(tmp_path / "same", start)
    tiny(tmp_path / "fewer", [*start, "data.num_train=20"])


def test_a_source_that_draws_its_samples_has_drawn_others(tiny, tmp_path):
    source = ["data=gaussians", "data.source.num_samples=100"]
    first = tiny(tmp_path / "first", source)
    tiny(tmp_path / "second", [*from_run(first.folder), *source, "seed=1"])
