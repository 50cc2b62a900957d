"""``truerisk reproduce``, and picking a study's runs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.types import RunMode

from truerisk.cli import main
from truerisk.config.compose import ConfigLoader, hydra_session
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError
from truerisk.core.threads import count_cores
from truerisk.verdicts import Runs, load_last_weights, read_series, read_setting
from truerisk.verdicts import reproduce as command
from truerisk.verdicts.claim import Finding
from truerisk.verdicts.gallery import RecordedStudy, markdown_table
from truerisk.verdicts.reproduction import (
    TOPICS,
    JudgedClaim,
    decode_finding,
    encode_finding,
    load_reproduction,
    overall_verdict,
    reproduction_names,
    write_grids,
    write_verdict,
)


@pytest.mark.parametrize("name", reproduction_names())
def test_every_reproduction_says_what_it_must(name):
    reproduction = load_reproduction(name)
    assert reproduction.sentence.endswith(".") and len(reproduction.sentence) < 120
    assert reproduction.formula and reproduction.source and reproduction.cost
    assert reproduction.claims
    for claim in reproduction.claims.values():
        assert claim.says and claim.source and claim.why
        assert claim.low > float("-inf") or claim.high < float("inf")


def test_the_list_has_them_all(capsys):
    assert main(["reproduce", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in reproduction_names():
        assert name in printed and load_reproduction(name).source in printed


CLAIMED = load_reproduction("condition_number").claims["exact_line_search"]
JUDGED = {"exact_line_search": JudgedClaim(CLAIMED, Finding(0.0, 0.0, 0.0), "holds")}


def test_the_list_says_how_long_each_takes_here(tmp_path, monkeypatch, capsys):
    """… once one of them has been timed: the machine is half as fast, as that one took twice."""
    monkeypatch.chdir(tmp_path)
    main(["reproduce", "--list"])
    assert "here\n" not in capsys.readouterr().out
    (tmp_path / "outputs" / "condition_number").mkdir(parents=True)
    cost = load_reproduction("condition_number").cost_seconds
    assert cost == 30
    write_verdict(JUDGED, tmp_path / "outputs" / "condition_number", 2 * cost)
    main(["reproduce", "--list"])
    told = capsys.readouterr().out
    assert "30 s; took 1 min here" in told and "3 min; about 6 min here" in told
    topics = [line for line in told.splitlines() if not line.startswith(" ")]
    assert topics == [topic for topic in TOPICS if topic in topics]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A reproduction whose study is made without training; ``launched`` has its command lines."""
    monkeypatch.chdir(tmp_path)
    folder, launched = tmp_path / "outputs" / "softmax_overflow", []

    def launch(arguments, ended):
        launched.append(arguments)
        for place in (folder, folder.with_name("softmax_overflow-quick")):
            place.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("truerisk.launch.launch_training", launch)
    monkeypatch.setattr(command, "Runs", SimpleNamespace(in_folders=list))
    reproduction = load_reproduction("softmax_overflow")
    return SimpleNamespace(reproduction=reproduction, folder=folder, launched=launched)


def test_only_a_whole_study_is_timed(study, monkeypatch):
    """… not one that is there already, nor another one made of it."""
    timed = []

    def judge(reproduction, runs, where, quick, seconds):
        timed.append(seconds)
        write_verdict(JUDGED, where, seconds)

    monkeypatch.setattr(command, "judge_study", judge)
    command._reproduce_one(study.reproduction, False, ["trainer.max_epochs=1"])
    shutil.rmtree(study.folder)
    command._reproduce_one(study.reproduction, False, ["hydra/launcher=pool"])
    command._reproduce_one(study.reproduction, False, [])
    assert timed[0] is None and timed[1] >= 0 and timed[2] == timed[1]


@pytest.mark.parametrize(
    ("quick", "overrides", "processes"),
    [
        (False, ["seed=3"], [f"hydra.launcher.processes={count_cores()}"]),
        (False, ["hydra.launcher.processes=1"], ["hydra.launcher.processes=1"]),
        (False, ["hydra/launcher=pool"], []),
        (True, [], []),
    ],
)
def test_a_study_takes_all_cores(quick, overrides, processes, study, monkeypatch):
    """… unless it is a quick one, or its launcher was chosen."""
    monkeypatch.setattr(command, "judge_study", lambda *given: "holds")
    command._reproduce_one(study.reproduction, quick, overrides)
    (launched,) = study.launched
    assert [given for given in launched if given.startswith("hydra.launcher")] == processes


@pytest.mark.parametrize("name", reproduction_names())
def test_every_study_can_take_all_cores(name):
    """A key that its launcher has not got would be refused."""
    study = load_reproduction(name)
    overrides = [*study.study_overrides(True), "hydra.launcher.processes=2"]
    with hydra_session():
        shared = ConfigLoader().load_configuration(PRIMARY, overrides, RunMode.MULTIRUN)
    assert shared.hydra.launcher.processes == 2


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
    monkeypatch.setattr(command, "_reproduce_one", one)
    run = ["reproduce", *verdicts, "--quick", "hydra/launcher=pool"]
    assert main(run) == 0
    assert asked == [(True, "hydra/launcher=pool")] * 2
    verdicts["condition_number"] = "does not hold"
    assert main(run) == 1


def test_grids_are_written_as_the_sweeper_reads_them():
    grids = {"a": [1e-9, True], "b": range(3)}, {"c": range(1, 9), "d": "[]", "+e": None}
    assert write_grids(*grids) == (
        "hydra.sweeper.grids=[{a:'1e-09,true',b:'range(3)'},{c:'range(1,9)',d:'[]',+e:'null'}]"
    )


@pytest.fixture(scope="module")
def runs(run):
    bowl = ["data=none", "model=quadratic_bowl", "optimizer=gd", "regularizer=[]"]
    return Runs(run(*bowl, f"model.condition={k}", "trainer.max_epochs=2") for k in (8.0, 4.0))


def test_runs_are_picked_by_their_configuration(runs):
    assert list(runs.grouped_by("model.condition")) == [4.0, 8.0]
    assert runs.with_setting("model.condition", 4.0).only_run is runs[1]
    assert len(runs.with_setting("choices.optimizer", "gd")) == 2
    assert len(runs.with_setting("no.such.key", None)) == 2
    assert read_setting(runs[0], "model.start") == (1.0,)
    with pytest.raises(ConfigError, match="there are 2"):
        _ = runs.only_run


def test_what_runs_logged(runs):
    first, last = read_series(runs[1], "distance")[[0, -1]]
    rates = [(1 - 0.1 * value) ** 2 for value in (0.25, 1.0)]
    assert first == pytest.approx(2**0.5)
    assert last == pytest.approx(sum(rate**2 for rate in rates) ** 0.5)
    assert load_last_weights(runs[1]) == pytest.approx(rates)


def test_overrides_that_take_away_what_a_claim_is_measured_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("truerisk.launch.launch_training", lambda arguments, ended: 0)
    monkeypatch.setattr(command, "Runs", SimpleNamespace(in_folders=list))
    monkeypatch.setattr(command, "judge_study", lambda *given: 1 // 0)
    (tmp_path / "outputs" / "condition_number").mkdir(parents=True)
    assert main(["reproduce", "condition_number", "trainer.max_epochs=1"]) == 2
    err = capsys.readouterr().err
    assert "trainer.max_epochs=1 changed what its claims are measured on" in err
    # where nothing was changed it is told as what it is
    assert main(["reproduce", "condition_number"]) == 1
    assert capsys.readouterr().err.startswith("error: ZeroDivisionError: ")


def test_what_a_quick_study_leaves_out_is_told_apart(tmp_path, capsys):
    """… from what was measured and decides nothing; what was measured decides for all."""
    reproduction = load_reproduction("mnist1d_table")
    missing, measured = Finding(math.nan, math.nan, math.nan), Finding(32.0, 31.0, 33.0)
    claims = {k: c._replace(measure=lambda runs: missing) for k, c in reproduction.claims.items()}
    first = claims["logistic_regression"]
    says = "accuracy, E[y = f(x)]"  # whose brackets are no colours
    claims["logistic_regression"] = first._replace(measure=lambda runs: measured, says=says)
    quick = replace(reproduction, claims=claims)
    judged = quick.judge_claims(Runs([]), quick=True)
    verdicts = [j.verdict for j in judged.values()]
    assert verdicts == ["holds", *["not run with --quick"] * 3]
    assert overall_verdict(judged) == "holds"
    assert {j.verdict for j in quick.judge_claims(Runs([])).values()} == {"holds", "inconclusive"}
    write_verdict(judged, tmp_path)
    record = json.loads((tmp_path / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert record["claims"]["gru"]["finding"] == {"value": None, "low": None, "high": None}
    command.print_verdicts(quick, judged)
    out = capsys.readouterr().out
    assert "nan" not in out and "E[y" in out
    study = RecordedStudy(quick, tmp_path / "mnist1d_table-quick", record)
    assert "1 of 4 hold, 3 not run with --quick" in markdown_table([study])


def test_what_was_not_measured_is_no_number():
    """… on the screen and in verdict.json, which other programs read."""
    finding = Finding(math.nan, math.nan, math.inf)
    assert str(finding) == "not measured: the study lacks its runs"
    text = json.dumps(encode_finding(finding), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": None, "high": "inf"}
    back = decode_finding(json.loads(text))
    assert math.isnan(back.value) and math.isnan(back.low) and back.high == math.inf
    assert decode_finding({"value": 1.0, "low": 0.5, "high": math.nan}).value == 1
