"""``truerisk reproduce``, and picking a study's runs."""

from __future__ import annotations

import pytest

from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.verdicts import Runs, claims_of, last_weights, series, setting
from truerisk.verdicts import reproduce as command
from truerisk.verdicts.reproduction import load, names


@pytest.mark.parametrize("name", names())
def test_every_reproduction_says_what_it_must(name):
    reproduction = load(name)
    assert reproduction.sentence.endswith(".") and len(reproduction.sentence) < 120
    assert reproduction.formula and reproduction.source and reproduction.cost
    assert claims_of(reproduction.module)
    for claim in claims_of(reproduction.module).values():
        assert claim.says and claim.source and claim.why
        assert claim.low > float("-inf") or claim.high < float("inf")


def test_the_list_has_them_all(capsys):
    assert main(["reproduce", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and load(name).source in printed for name in names())


def test_a_name_that_there_is_not(capsys):
    assert main(["reproduce", "condition_nummer"]) == 2
    assert "condition_number" in capsys.readouterr().err


def test_nothing_asked_for(capsys):
    assert main(["reproduce"]) == 2
    assert "NAME" in capsys.readouterr().out


def test_the_exit_code_tells(tmp_path, monkeypatch):
    verdicts = {"condition_number": "holds", "softmax_overflow": "inconclusive"}
    asked = []

    def one(reproduction, quick, overrides):
        asked.append((quick, *overrides))
        return verdicts[reproduction.name]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_one", one)
    run = ["reproduce", *verdicts, "--quick", "hydra/launcher=pool"]
    assert main(run) == 0
    assert asked == [(True, "hydra/launcher=pool")] * 2
    verdicts["condition_number"] = "does not hold"
    assert main(run) == 1


@pytest.fixture(scope="module")
def runs(run):
    bowl = ["data=none", "model=quadratic_bowl", "optimizer=gd", "regularizer=[]"]
    return Runs(run(*bowl, f"model.condition={k}", "trainer.max_epochs=2") for k in (8.0, 4.0))


def test_runs_are_picked_by_their_configuration(runs):
    assert list(runs.by("model.condition")) == [4.0, 8.0]
    assert runs.only("model.condition", 4.0).one is runs[1]
    assert len(runs.only("choices.optimizer", "gd")) == 2
    assert len(runs.only("no.such.key", None)) == 2
    assert setting(runs[0], "model.start") == (1.0,)
    with pytest.raises(ConfigError, match="there are 2"):
        _ = runs.one


def test_what_runs_logged(runs):
    first, last = series(runs[1], "distance")[[0, -1]]
    rates = [(1 - 0.1 * value) ** 2 for value in (0.25, 1.0)]
    assert first == pytest.approx(2**0.5)
    assert last == pytest.approx(sum(rate**2 for rate in rates) ** 0.5)
    assert last_weights(runs[1]) == pytest.approx(rates)
