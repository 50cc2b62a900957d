"""Norms of the gradient against those of a step taken by hand, and the flags."""

from __future__ import annotations

import pytest

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import GradientFlow


def test_norms_are_those_of_the_first_step(run, stepping, micro_batches, series):
    recipe = ["data=iris", "model.width=8", "data.batch_size=30", "trainer.precision=64-true"]
    logged = run(*recipe, "diagnostics=[gradient_flow]", "trainer.max_epochs=1").history
    made, step = stepping(*recipe)
    step(next(iter(micro_batches(made, 1))))
    norms = {
        name: sum(p.grad.square().sum() for p in layer.parameters()).sqrt().item()
        for name, layer in (
            ("hidden.0.linear", made.model.hidden[0]),
            ("output", made.model.output),
        )
    }
    first = logged[logged.step == 1].set_index("name").value
    for name, norm in norms.items():
        assert first[f"gradient_flow/norm/{name}"] == pytest.approx(norm, rel=1e-12)
    ratio = norms["hidden.0.linear"] / norms["output"]
    assert first["gradient_flow/ratio"] == pytest.approx(ratio, rel=1e-12)


DEEP = {
    "vanishing": ["model.depth=8", "model.activation=sigmoid"],
    "exploding": ["model.depth=20", "model.activation=tanh", "initializer.weight.std=1"],
}
"""Sigmoids have slopes of at most 1/4; wide random weights make tanh layers chaotic."""


@pytest.mark.parametrize("flag", DEEP)
def test_vanishing_and_exploding_gradients_are_named_once(flag, run, capsys):
    recipe = ["data=iris", "model.width=30", "initializer=normal", *DEEP[flag]]
    short = ["trainer.max_epochs=2", "optimizer.lr=1e-9", "diagnostics=[gradient_flow]"]
    logged = run(*recipe, *short).history
    flags = logged[logged.name == f"gradient_flow/{flag}"].value
    assert (flags == 1).all() and len(flags) > 1
    (other,) = DEEP.keys() - {flag}
    assert (logged[logged.name == f"gradient_flow/{other}"].value == 0).all()
    said = [line for line in capsys.readouterr().err.splitlines() if "gradient_flow" in line]
    assert len(said) == 1 and flag[:5] in said[0] and "at step 1" in said[0]


def test_an_optimizer_without_a_gradient_is_refused(run):
    with pytest.raises(ConfigError, match=r"diagnostics\.gradient_flow: the optimizer leaves no"):
        run(
            "data=iris",
            "optimizer=hill_climbing",
            "data.batch_size=full",
            "diagnostics=[gradient_flow]",
        )


def test_bad_numbers_are_refused():
    for options in ({"threshold": 0}, {"every": {"steps": 0}}, {"every": {"epoch": 1}}):
        with pytest.raises(ConfigError, match=r"diagnostics\.gradient_flow\."):
            GradientFlow(**options)
