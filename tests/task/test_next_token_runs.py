"""Tokens, from arrays to summaries, with a model of a user's own."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import truerisk
from truerisk.assemble import assemble, build_data
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

MODEL = """
from torch import nn


class Bigram(nn.Module):
    def __init__(self, output_size, width=8):
        super().__init__()
        self.embed = nn.Embedding(output_size, width)
        self.head = nn.Linear(width, output_size)

    def forward(self, x):
        return self.head(self.embed(x))
"""
SHORT = ["data=arrays", "data.source.task=next_token", "loss=cross_entropy", "model=bigram"]
SHORT += ["trainer.max_epochs=12", "optimizer.lr=0.05", "data.batch_size=20"]
V, T = 5, 12


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's folder: sequences in which each token follows from the last, and a model."""
    draw = np.random.default_rng(0)
    first = draw.integers(0, V, size=(300, 1))
    flips = draw.random(size=(300, T)) < 0.05
    tokens = (first + 2 * np.arange(T + 1)) % V
    tokens[:, 1:][flips] = draw.integers(0, V, size=int(flips.sum()))
    np.savez(tmp_path / "tokens.npz", x=tokens[:, :-1], y=tokens[:, 1:])
    (tmp_path / "own_tokens.py").write_text(MODEL)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    option = "# of the test\n_target_: own_tokens.Bigram\nwidth: 8\n"
    (tmp_path / "conf" / "model" / "bigram.yaml").write_text(option)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_tokens", None)


def overrides(mine, *more):
    return [*SHORT, f"data.source.path={mine}/tokens.npz", *more]


def train(mine, name, *more):
    cfg = compose(overrides(mine, *more), str(mine / "conf"))
    return truerisk.train(cfg, folder=mine / name)


def test_a_bigram_learns_the_next_token(mine, capsys):
    run = train(mine, "run")
    assert run.status == "finished" and run.task == "next_token"
    known = {"task": "next_token", "input_shape": [T], "num_outputs": V, "class_names": None}
    assert known.items() <= run.run.metadata()["data"].items()
    assert 0 < run.summary["error/test"].value < 0.2 < 1 < run.history.value.iloc[0] < 3
    assert run.summary["error/test"].stderr > 0 == run.summary["error/train"].stderr
    run.report()
    assert "token error, %" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["arrays", "text", "copy_memory"])
@pytest.mark.parametrize("kind", ["feature", "channel", "global"])
def test_tokens_are_not_standardized_even_on_request(mine, data, kind):
    given = ["loss=cross_entropy", "model=gpt", f"data={data}", f"data.standardize={kind}"]
    if data == "arrays":
        given += [f"data.source.path={mine}/tokens.npz", "data.source.task=next_token"]
    if (data, kind) == ("arrays", "feature"):  # as it is where nobody asks for anything
        assert build_data(compose(given)).train.x.dtype == torch.int64
        return
    with pytest.raises(ConfigError, match=rf"standardize={kind} does nothing.*standardize=none"):
        build_data(compose(given))


def test_a_sequence_is_a_sample(mine):
    run = train(mine, "run")
    data = assemble(run.config).data
    assert data.test.x.dtype == data.test.y.dtype == torch.int64
    with torch.no_grad():
        outputs = run.model(data.test.x)
    wrong = (outputs.argmax(-1) != data.test.y).double().mean(1)
    losses = torch.nn.functional.cross_entropy(outputs.mT.double(), data.test.y, reduction="none")
    error, risk = run.summary["error/test"], run.summary["risk/test"]
    assert risk.value == pytest.approx(float(losses.mean()), rel=1e-6)
    assert risk.stderr == pytest.approx(float(losses.mean(1).std()) / len(losses) ** 0.5, rel=1e-5)
    assert error.value == pytest.approx(float(wrong.mean()), rel=1e-6)
    assert error.stderr == pytest.approx(float(wrong.std()) / len(wrong) ** 0.5, rel=1e-6)


def test_tokens_stay_whole_numbers_in_double_and_half_precision(mine):
    for precision in ("64-true", "bf16-mixed"):
        run = train(mine, precision, f"trainer.precision={precision}", "trainer.max_epochs=1")
        assert run.status == "finished"


@pytest.mark.parametrize("name", ["mixup", "input_noise", "input_gradient"])
def test_what_moves_inputs_is_refused(mine, name):
    with pytest.raises(ConfigError, match=rf"regularizer={name} mixes, shifts or differentiates"):
        train(mine, "refused", f"regularizer=[{name}]")


@pytest.mark.parametrize("name", ["gauss_newton", "adahessian", "newton_cg", "sam"])
def test_second_order_methods_train_on_tokens(mine, name):
    given = [o for o in SHORT if not o.startswith(("optimizer.", "data.batch", "trainer."))]
    given += [f"data.source.path={mine}/tokens.npz", f"optimizer={name}", "trainer.max_epochs=2"]
    if name in ("gauss_newton", "newton_cg"):
        given.append("data.batch_size=full")
    run = truerisk.train(compose(given, str(mine / "conf")), folder=mine / name)
    assert run.status == "finished"
    assert run.summary["risk/val"].epoch > 0


def test_fisher_factors_of_sequences_are_refused(mine):
    with pytest.raises(ConfigError, match=r"\[n, K\].*such as adam"):
        train(mine, "kfac", "optimizer=kfac", "optimizer.lr=0.01")


def test_tokens_are_stacked_or_train_alone(mine, monkeypatch):
    monkeypatch.chdir(mine)
    sweep = ["hydra/launcher=vectorized", "seed=1,2", "report=false", "figures=false", "study=s"]
    assert main(["train", "-m", "--config-dir=conf", *overrides(mine), *sweep]) == 0
    folders = [p.parent for p in (mine / "outputs/s").rglob("summary.json")]
    runs = {r.config.seed.base: r for r in map(truerisk.load_run, folders)}
    for seed in (1, 2):
        alone = train(mine, str(seed), f"seed={seed}")
        for name in ("risk/test", "error/test", "error/val"):
            ours = runs[seed].summary[name].value
            assert ours == pytest.approx(alone.summary[name].value, rel=1e-4)
