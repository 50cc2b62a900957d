"""What runs end at."""

from __future__ import annotations

import pytest
import torch

KINDS = ("minimum", "maximum", "saddle", "degenerate", "not_stationary")
LOOK = ["diagnostics=[critical_point]", "optimizer=gd"]
BOWL = "model=quadratic_bowl"
ENDS = {
    "minimum": ["model=paraboloid", "optimizer.lr=0.5"],
    "saddle": ["model=saddle", "model.start=[1,0]", "optimizer.lr=0.5"],
    "degenerate": [BOWL, "model.spectrum=[0.0,1.0]", "optimizer.lr=1"],
    "maximum": [BOWL, "model.spectrum=[-1.0,-2.0]", "model.start=[0,0]"],
    "not_stationary": ["model=rosenbrock", "optimizer.lr=1e-4"],
}
"""Where one gradient step leads to."""


@pytest.mark.parametrize("kind", ENDS)
def test_kinds(kind, on_function, capsys):
    found = on_function(*ENDS[kind], *LOOK, "trainer.max_epochs=1")
    (last,) = found.tables["critical_point"].itertuples(index=False)
    assert {k: getattr(last, k) for k in KINDS} == {k: float(k == kind) for k in KINDS}
    said = [s for s in capsys.readouterr().out.splitlines() if s.startswith("critical_point: ")]
    assert len(said) == 1 and said[0].startswith(f"critical_point: {kind.replace('_', ' ')} at ")


def test_at_the_last_weights(watched, hessian):
    (last,) = watched.tables["critical_point"].itertuples(index=False)
    values = torch.linalg.eigvalsh(hessian)
    assert last.lambda_max == pytest.approx(float(values[-1]), rel=1e-9)
    assert last.lambda_min == pytest.approx(float(values[0]), rel=1e-7)
    assert last.not_stationary == 1 and last.gradient_norm > last.gradient_max > 0
    assert watched.tables["critical_point"].index.tolist() == [12]


def test_curves_bend_as_the_eigenvalues_say(watched):
    kept, (last,) = watched.kept["critical_point"], watched.tables["critical_point"].itertuples()
    at, middle = kept["at"], len(kept["at"]) // 2
    for values, eigenvalue in zip(kept["values"], (last.lambda_min, last.lambda_max), strict=True):
        bend = (values[middle + 1] - 2 * values[middle] + values[middle - 1]) / at[middle + 1] ** 2
        assert bend == pytest.approx(eigenvalue, rel=0.02)


def test_on_the_way(on_function, capsys):
    every = ["diagnostics.critical_point.every.epochs=1", "trainer.max_epochs=2"]
    found = on_function("model=paraboloid", "optimizer.lr=0.5", *LOOK, *every)
    table = found.tables["critical_point"]
    assert table["minimum"].tolist() == [0, 1, 1]
    assert table["not_stationary"].tolist() == [1, 0, 0]
    assert capsys.readouterr().out.count("critical_point: ") == 3


def test_a_run_that_stops_early_is_told_where_it_stopped(on_function):
    stop = ["stop.gradient_norm=0.1", "trainer.max_epochs=50", "optimizer.lr=0.25"]
    found = on_function("model=paraboloid", *LOOK, *stop)
    (step,) = found.tables["critical_point"].index
    assert step < 50
