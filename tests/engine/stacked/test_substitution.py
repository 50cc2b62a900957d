"""Numbers that a part declares stack; others never come from another member's run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from truerisk.assemble import assemble
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.config.targets import locate_target
from truerisk.core.errors import ConfigError
from truerisk.engine.stacked.substitution import declared_numbers, differing_numbers
from truerisk.result import load_run

PACKAGE = '''
import torch
from truerisk.regularizer import Regularizer


class Bridge(Regularizer):
    """λ Σ (w² + ¼)^γ."""

    def __init__(self, coefficient: float, gamma: float) -> None:
        self.coefficient, self.gamma = coefficient, gamma

    def penalty(self, forward):
        return self.coefficient * sum(
            ((w.square() + 0.25) ** self.gamma).sum() for w in forward.params.values()
        )


class DeclaredBridge(Bridge):
    stacks = ("coefficient", "gamma")


class HiddenBridge(DeclaredBridge):
    """Declares γ, and keeps it where nobody looks for it."""

    def __init__(self, coefficient: float, gamma: float) -> None:
        self.coefficient, self._gamma = coefficient, gamma

    def penalty(self, forward):
        return self.coefficient * sum(
            ((w.square() + 0.25) ** self._gamma).sum() for w in forward.params.values()
        )


class DerivedBridge(DeclaredBridge):
    """Declares γ, and uses what it has made of it before."""

    def __init__(self, coefficient: float, gamma: float) -> None:
        super().__init__(coefficient, gamma)
        self._power = 2 * gamma

    def penalty(self, forward):
        return self.coefficient * sum(
            ((w.square() + 0.25) ** (self._power / 2)).sum() for w in forward.params.values()
        )
'''
RECIPE = [
    *("data=iris", "data.batch_size=30", "model.width=4", "model.depth=1", "optimizer=sgd"),
    *("trainer.max_epochs=4", "trainer.precision=64-true", "figures=false", "report=false"),
]
GAMMAS = "regularizer.bridge.gamma=0.5,1.5"


@pytest.fixture
def sweep(tmp_path, monkeypatch, capfd, last_weights):
    """Sweep γ of a penalty from a package of one's own: last weights by γ, and what was said."""
    (tmp_path / "conf" / "regularizer").mkdir(parents=True)
    (tmp_path / "own_bridges.py").write_text(PACKAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def sweep(kind, *more):
        node = f"bridge:\n  _target_: own_bridges.{kind}\n  coefficient: 0.01\n  gamma: 1.0\n"
        (tmp_path / "conf/regularizer/bridge.yaml").write_text(f"# A penalty of one's own\n{node}")
        study = f"study=s{len(list(tmp_path.glob('outputs/*')))}"
        args = ["train", "-m", "--config-dir=conf", *RECIPE, "regularizer=[bridge]", study, *more]
        assert main(args) == 0
        runs = [load_run(path) for path in (tmp_path / "outputs" / study[6:]).glob("*-*/")]
        assert {run.status for run in runs} == {"finished"}
        weights = {(r.config.regularizer.bridge.gamma, r.config.seed.base): r for r in runs}
        return {key: last_weights(run) for key, run in weights.items()}, capfd.readouterr().err

    return sweep


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys() and len(ours) > 1
    pairs = [(ours[k][n], theirs[k][n]) for k in ours for n in ours[k]]
    return max(float((a - b).abs().max()) for a, b in pairs)


STACKED = "hydra/launcher=vectorized"


def test_a_number_of_ones_own_stacks_where_it_is_declared(sweep):
    together, said = sweep("DeclaredBridge", GAMMAS, STACKED)
    assert "by itself" not in said and "2 cells, 100%" in said
    alone, _ = sweep("DeclaredBridge", GAMMAS)
    assert largest_difference(together, alone) < 1e-12
    distance = max(
        float((together[0.5, 0][n] - w).abs().max()) for n, w in together[1.5, 0].items()
    )
    assert distance > 1e-3


def test_one_that_is_not_declared_has_to_be_the_same(sweep):
    together, said = sweep("Bridge", GAMMAS, "seed=0,1", STACKED)
    assert "group 1 of 2: 2 cells, 100%" in said and "group 2 of 2: 2 cells, 100%" in said
    alone, _ = sweep("Bridge", GAMMAS, "seed=0,1")
    assert largest_difference(together, alone) < 1e-12


@pytest.mark.parametrize("kind", ["HiddenBridge", "DerivedBridge"])
def test_a_declaration_that_does_not_hold_trains_nobody_with_anothers_number(sweep, kind):
    together, said = sweep(kind, GAMMAS, STACKED)
    name = "gamma" if kind == "HiddenBridge" else "_power"
    assert re.search(rf"training it with others failed: ConfigError: .*\b{name}\b", said)
    alone, _ = sweep(kind, GAMMAS)
    assert largest_difference(together, alone) == 0


def test_every_number_of_our_own_regularizers_is_declared():
    for file in (Path(__file__).parents[3] / "conf" / "regularizer").glob("*.yaml"):
        ((key, node),) = yaml.safe_load(file.read_text()).items()
        part = locate_target(node["_target_"], key)
        numbers = {k for k, v in node.items() if type(v) in (int, float)}
        # the white of augment is the data's, and cells of other data are no stack
        numbers.discard("white")
        assert part.unstackable or numbers == set(declared_numbers(part)), file


def test_what_a_layer_holds_and_nobody_declares_must_not_differ():
    recipes = [assemble(compose(RECIPE)) for _ in range(2)]
    assert differing_numbers(recipes) == {}
    recipes[1].model.add_module("act", torch.nn.LeakyReLU(0.2))
    recipes[0].model.add_module("act", torch.nn.LeakyReLU(0.1))
    with pytest.raises(ConfigError, match=r"model\.act\.negative_slope of LeakyReLU differs"):
        differing_numbers(recipes)
