"""Ten tokens to be recalled: what forgetting costs in closed form, and recurrent nets of tokens."""

from __future__ import annotations

import math

import pytest
import torch

import truerisk
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

DATA = ["data=copy_memory", "data.source.blanks=3", "data.source.num_samples=300"]
SHORT = [*DATA, "regularizer=[]", "optimizer.lr=0.01", "trainer.max_epochs=3"]
EVERY = ["model.readout=every", "model.bidirectional=false", "model.width=8"]
FORGETFUL = 10 * math.log(8) / (3 + 20)
"""Blanks are known, and each of ten symbols is one of eight."""


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_who_forgets_pays_ten_logarithms_of_eight(model, tmp_path):
    cfg = compose([*SHORT, *EVERY, f"model={model}", "risk.true_stderr=0.05"])
    run = truerisk.train(cfg, folder=tmp_path / "run")
    summary = run.summary
    for split in ("train", "val", "test"):
        assert summary[f"constant/risk/{split}"].value == pytest.approx(FORGETFUL, rel=1e-6)
        # each sequence costs the same
        assert summary[f"constant/risk/{split}"].stderr == pytest.approx(0, abs=1e-8)
    expected, size = 10 * 7 / 8 / 23, 60
    spread = (70 / 64 / 23**2 / size) ** 0.5
    assert abs(summary["constant/error/test"].value - expected) < 4 * spread
    assert summary["risk/bayes"].value == summary["error/bayes"].value == 0
    risks = run.history.query("name == 'risk/val'").value
    assert risks.iloc[-1] < risks.iloc[0]
    assert run.model(torch.zeros(2, 23, dtype=torch.long)).shape == (2, 23, 10)


def test_a_gated_net_recalls_what_it_is_asked_for(tmp_path):
    """Its risk falls below what forgetting costs, where the pause is short."""
    given = ["data.source.blanks=1", "data.source.num_samples=1500", "optimizer.lr=0.03"]
    given += ["model=gru", "model.width=32", "trainer.max_epochs=5", "data.batch_size=20"]
    run = truerisk.train(compose([*SHORT, *EVERY, *given]), folder=tmp_path / "run")
    assert run.summary["risk/test"].value < 0.9 * 10 * math.log(8) / 21


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_scores_are_those_of_the_state_after_each_token(model):
    """One by one with the layer's own cell, and blind to what follows."""
    cfg = compose([*SHORT, *EVERY, f"model={model}"])
    from hydra.utils import instantiate

    torch.manual_seed(0)
    net = instantiate(cfg.model, (6,), 10).double()
    x = torch.randint(10, (4, 6))
    scores = net(x)
    state = None
    for t in range(6):
        code = torch.nn.functional.one_hot(x[:, t : t + 1], 10).double()
        out, state = net.recurrent(code, state)
        torch.testing.assert_close(scores[:, t], net.output(out[:, 0]), rtol=0, atol=1e-12)


def test_stacked_nets_of_tokens_are_single_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [*SHORT, *EVERY, "model=gru", "trainer.max_epochs=2"]
    sweep = ["hydra/launcher=vectorized", "optimizer.lr=0.003,0.01", "report=false"]
    assert main(["train", "-m", *given, *sweep, "figures=false", "study=s"]) == 0
    folders = [p.parent for p in (tmp_path / "outputs/s").rglob("summary.json")]
    assert len(folders) == 2
    for stacked in map(truerisk.load_run, folders):
        lr = f"optimizer.lr={stacked.config.optimizer.lr}"
        alone = truerisk.train(compose([*given, lr]), folder=tmp_path / lr)
        for name in ("risk/test", "risk/val", "error/test", "constant/risk/test"):
            value = alone.summary[name].value
            assert stacked.summary[name].value == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([*SHORT, "model=gru"], "model=gru reads quantities.*model.readout=every"),
        ([*SHORT, "model=gru", "model.readout=every"], "set model.bidirectional=false"),
        (["data=iris", "model=gru", *EVERY], "reads tokens.*take last, flatten or mean"),
        (["data=digits", "model=gru", *EVERY], "sequences of tokens with model.readout=every"),
    ],
)
def test_what_does_not_go_with_tokens_is_refused(given, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        truerisk.train(compose(given), folder=tmp_path / "run")
