"""Eigenvalues, trace, condition number and sharpness, against dense matrices and closed forms."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Curvature
from truerisk.diagnostics.history_plots import pivot_history
from truerisk.objective import LocalObjective, Objective

BOWL = ["model=quadratic_bowl", "model.dimension=3", "model.condition=8", "model.rotation=1"]
SHORT = ["trainer.max_epochs=2", "diagnostics=[curvature]", "diagnostics.curvature.every.epochs=1"]


def test_at_the_last_weights(watched, hessian):
    last = watched.tables["curvature"].iloc[-1]
    values = torch.linalg.eigvalsh(hessian)
    size = float(values.abs().max())
    assert last["lambda_max"] == pytest.approx(float(values[-1]), abs=2e-3 * size)
    assert last["lambda_min"] == pytest.approx(float(values[0]), abs=2e-3 * size)
    assert abs(last["trace"] - float(values.sum())) < 4 * last["trace/stderr"]
    assert last["stability"] == pytest.approx(0.05 * last["lambda_max"], rel=1e-12)
    assert last["threshold"] == pytest.approx(3.8, rel=1e-12)
    assert values[0] < 0 and "condition" not in last  # it is inside the spectrum


def test_when_it_looks(watched):
    assert watched.tables["curvature"].index.tolist() == [0, 6, 12]


def test_on_a_bowl(on_function):
    found = on_function(*BOWL, *SHORT, "optimizer=gd", "optimizer.lr=0.5")
    first = found.tables["curvature"].iloc[0]
    expected = {"lambda_max": 1, "lambda_min": 1 / 8, "condition": 8, "trace": 1 + 8**-0.5 + 1 / 8}
    for name, value in {**expected, "stability": 0.5, "threshold": 2}.items():
        assert first[name] == pytest.approx(value, rel=1e-9)
    assert "trace/stderr" not in first.dropna()


def test_sharpness_of_adam_is_preconditioned(on_function):
    """After one step √v̂ = |g|, so that λmax is that of (lr/((1 − β₁)|g|))^½ H (…)^½."""
    found = on_function(*BOWL, *SHORT, "optimizer=adam", "optimizer.lr=0.01", "optimizer.eps=0")
    table = found.tables["curvature"]
    assert table["stability"].isna().tolist() == [True, False, False]
    h, start = found.result.model.hessian, found.result.config.model.start
    start = torch.tensor([float(start[i % len(start)]) for i in range(3)], dtype=torch.float64)
    root = (0.01 / (0.1 * (h @ start).abs())).sqrt()
    expected = torch.linalg.eigvalsh(root[:, None] * h * root)[-1]
    assert table["stability"].iloc[1] == pytest.approx(float(expected), rel=1e-9)
    assert table["threshold"].iloc[1] == pytest.approx(38)


def test_batch_norm_by_the_batch(run, assembled):
    """At initial weights running statistics are 0 and 1; the batch's are not."""
    small = ["data=iris", "model.width=3", "model.normalization=batch", "regularizer=[]"]
    small += ["trainer.precision=64-true", "risk.train_samples=1000"]
    still = [*SHORT[1:], "optimizer.lr=0", "trainer.max_epochs=1"]
    found = {
        mode: run(*small, *still, f"diagnostics.curvature.training_mode={mode}")
        for mode in (True, False)
    }
    tables = {mode: pivot_history(seen.history, "curvature") for mode, seen in found.items()}
    recipe = assembled(*small)
    every = torch.arange(len(recipe.data.train))
    (batch,) = recipe.data.train.batches([every])
    for mode, table in tables.items():
        point = LocalObjective(Objective(recipe.model.train(mode), recipe.surrogate), None, [batch])
        h = torch.autograd.functional.hessian(
            lambda w, at=point: at.objective(at.state(w), batch).objective, point.w
        )
        first = table.iloc[0]
        assert first["lambda_max"] == pytest.approx(float(torch.linalg.eigvalsh(h)[-1]), rel=1e-6)
        assert first["trace"] == pytest.approx(float(h.trace()), rel=1e-6)
    by_batch, by_running = (table["lambda_max"].iloc[0] for table in tables.values())
    assert abs(by_batch / by_running - 1) > 0.1


def test_a_method_without_a_known_threshold_says_so(on_function, capsys):
    found = on_function(*BOWL, *SHORT, "optimizer=newton")
    assert "stability" not in found.tables["curvature"]
    said = [line for line in capsys.readouterr().err.splitlines() if "Newton" in line]
    assert len(said) == 1 and "no stability threshold" in said[0]


def test_a_saddle_and_a_valley(on_function):
    saddle = on_function("model=saddle", *SHORT, "optimizer=gd").tables["curvature"].iloc[0]
    assert (saddle["lambda_min"], saddle["lambda_max"]) == pytest.approx((-2, 2))
    assert (saddle["trace"], saddle["condition"]) == pytest.approx((0, 1))
    spectrum = ["model=quadratic_bowl", "model.spectrum=[0.0,1.0]"]
    valley = on_function(*spectrum, *SHORT, "optimizer=gd").tables["curvature"].iloc[0]
    assert valley["condition"] == float("inf")


def test_bad_numbers_are_refused():
    for options in ({"probes": 1}, {"tolerance": 0}, {"every": {"epochs": 0}}):
        with pytest.raises(ConfigError, match=r"diagnostics\.curvature\."):
            Curvature(**options)
