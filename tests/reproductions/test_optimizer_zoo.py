"""The claims on optimizers with the same trials, and what turns them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import qmc

from truerisk.optimizer import Newton
from truerisk.reproductions import optimizer_zoo as zoo
from truerisk.verdicts import Runs, write_grids

OPTIONS = Path(__file__).parents[2] / "conf" / "optimizer"
NEWTON = write_grids({**zoo._LINE, "optimizer": ["gd", "newton"]})


def test_no_claim_fails(at):
    """The quick study has the least squares alone."""
    done = at.quick("optimizer_zoo")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_newton_with_the_gradient_for_a_direction(at, monkeypatch):
    assert at.study("optimizer_zoo", "newton_is_ahead", NEWTON) == "holds"
    monkeypatch.setattr(Newton, "_newton_direction", lambda self, oracle: -oracle.gradient())
    broken = at.study("optimizer_zoo", "newton_is_ahead", NEWTON, "study=broken")
    assert broken == "does not hold"


def test_every_option_is_in_the_zoo_or_told_why_not(study_grids):
    """A new option is in it without being named; one without a step length has no trials."""
    from truerisk.config.compose import ConfigLoader, hydra_session
    from truerisk.sweeps.sweeper.axis import write_axes
    from truerisk.sweeps.sweeper.grids import list_grid

    options = {path.stem for path in OPTIONS.glob("[!_]*.yaml")} - set(zoo.LEFT_OUT)
    for name in options - {"sam"}:  # its base has one
        assert "lr" in yaml.safe_load((OPTIONS / f"{name}.yaml").read_text()), name
    grids = study_grids("optimizer_zoo")
    with hydra_session():
        loader = ConfigLoader()
        found = [
            {dict(o.split("=", 1) for o in point)["optimizer"] for point in points}
            for axes in {grid["optimizer"] for grid in grids}
            for points in [list_grid(loader.read_overrides(write_axes({"optimizer": axes})))]
        ]
    tuned = [{"sam"}, options - {"sam"}]
    timed = [{"momentum"}, options - {"momentum"}]
    assert all(names in found for names in (*tuned, *timed, options))
    assert len(found) == 5
    assert {grid["data"] for grid in grids} == set(zoo.TARGETS) == set(zoo.NAMES)


def test_trials_are_sobols_points_besides_the_defaults(study_grids):
    u = (np.log10(zoo.RATES) + 2.5) / 3
    # a net in base 2, as scrambling leaves it: the draws of SciPy's versions differ
    assert set(np.floor(2 * u)) == set(np.floor(2 * qmc.Sobol(1, scramble=False).random(2)[:, 0]))
    swept = [
        grid.get("optimizer.lr", grid.get("optimizer.base.lr"))
        for grid in study_grids("optimizer_zoo")
    ]
    assert {text for text in swept if text} == {",".join(map(str, zoo.RATES))}
    # four problems: at the defaults, at these, SAM at these, and for the time twice
    assert len(swept) == 5 * 4
    assert swept.count(None) == 3 * 4
    options = (yaml.safe_load(path.read_text()) for path in OPTIONS.glob("[!_]*.yaml"))
    assert not {option.get("lr") for option in options} & set(zoo.RATES)


def trial(risk: float, default: bool = False) -> zoo.ZooTrial:
    return zoo.ZooTrial(risk, risk, 1.0, default, 1.0, 1.0)


def test_best_of_random_ones():
    trials = [trial(risk) for risk in (0.3, 0.1, 0.8, 0.5, 0.0)]
    lowest = [min(t.unseen for t in drawn) for drawn in combinations(trials, 3)]
    assert zoo.expect_best(trials, {"all": trials}, 3) == pytest.approx(np.mean(lowest))


def judge(monkeypatch, claim: str, risks: dict) -> str:
    """The verdict on a claim, of risks by problem and optimizer, of three seeds alike."""
    found = {
        (problem, seed): {
            name: [trial(x, default=i == 0) for i, x in enumerate(values)]
            for name, values in own.items()
        }
        for problem, own in risks.items()
        for seed in range(3)
    }
    monkeypatch.setattr(zoo, "collect_trials", lambda runs: found)
    made = getattr(zoo, claim)
    return made.judge_finding(made.measure(Runs([])))


def test_a_trial_that_is_missing(monkeypatch):
    risks = {"a": {"sgd": [0.1, 0.2], "adam": [0.1, 0.2]}, "b": {"sgd": [0.1, 0.2], "adam": [0.1]}}
    assert judge(monkeypatch, "equal_trials", risks) == "does not hold"
    risks["b"]["adam"] = [0.1, 0.3]
    assert judge(monkeypatch, "equal_trials", risks) == "holds"
    del risks["b"]["adam"]
    assert judge(monkeypatch, "equal_trials", risks) == "does not hold"


def test_an_adam_that_is_worst_of_all(monkeypatch):
    poor = {p: {"sgd": [0.1], "momentum": [0.2], "adam": [0.4]} for p in "ab"}
    assert judge(monkeypatch, "adam_is_near", poor) == "does not hold"
    assert judge(monkeypatch, "adam_includes_momentum", poor) == "does not hold"
    assert judge(monkeypatch, "momentum_includes_sgd", poor) == "does not hold"
    good = {p: {"sgd": [0.4], "momentum": [0.2], "adam": [0.1]} for p in "ab"}
    assert judge(monkeypatch, "adam_is_near", good) == "holds"
    assert judge(monkeypatch, "adam_includes_momentum", good) == "holds"
    assert judge(monkeypatch, "momentum_includes_sgd", good) == "holds"


def test_one_order_on_all_problems(monkeypatch):
    """Ranks that differ between problems no more than between seeds."""
    order = {"sgd": [0.1], "adam": [0.2], "lion": [0.3]}
    turned = {"sgd": [0.3], "adam": [0.2], "lion": [0.1]}
    assert judge(monkeypatch, "ranks_differ", {"a": order, "b": turned}) == "holds"


def test_defaults_that_do_nothing(monkeypatch):
    risks = {name: [0.9, 0.1] for name in ("sgd", "adam", "lion")}
    assert judge(monkeypatch, "untuned_ones_do", {"a": risks}) == "does not hold"
    risks = {name: [0.12, 0.1] for name in ("sgd", "adam", "lion")}
    assert judge(monkeypatch, "untuned_ones_do", {"a": risks}) == "holds"
