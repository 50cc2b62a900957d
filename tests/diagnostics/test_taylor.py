"""Predicted and real decreases."""

from __future__ import annotations

import pytest

BOWL = ["model=quadratic_bowl", "model.dimension=4", "model.rotation=2", "trainer.max_epochs=3"]
EYE = ["diagnostics=[taylor]"]


def test_every_step_of_a_quadratic_is_predicted_to_second_order(on_function):
    found = on_function(*BOWL, *EYE, "optimizer=momentum", "optimizer.lr=0.3")
    table = found.tables["taylor"]
    assert table.index.tolist() == [1, 2, 3]
    assert table["real"].tolist() == pytest.approx(table["second"].tolist(), rel=1e-9)
    values = found.result.history.query("name == 'objective'").sort_values("epoch").value
    assert table["real"].tolist() == pytest.approx((-values.diff()[1:4]).tolist(), rel=1e-9)


def test_the_optimal_length_on_a_bowl_is_that_of_exact_line_search(on_function):
    """In one dimension, −g/H: 1/(ηH) lengths of a gradient step."""
    one = ["model=quadratic_bowl", "model.spectrum=[4.0]", "optimizer=gd", "optimizer.lr=0.1"]
    table = on_function(*one, *EYE, "trainer.max_epochs=2").tables["taylor"]
    assert table["optimal"].tolist() == pytest.approx([2.5, 2.5], rel=1e-9)
    exact = on_function(*BOWL, *EYE, "optimizer=gd_exact").tables["taylor"]
    assert exact["optimal"].tolist() == pytest.approx([1, 1, 1], rel=1e-6)


def test_no_length_is_best_where_j_bends_down(on_function):
    short = ["optimizer=gd", "trainer.max_epochs=3"]
    found = on_function("model=saddle", "model.start=[0,1]", *EYE, *short)
    assert "optimal" not in found.tables["taylor"]


def test_the_last_step_of_a_run(watched, hessian):
    """The path keeps the weights after every epoch, so the last step alone is not among them."""
    table = watched.tables["taylor"]
    assert table.index.tolist() == [1, 3, 6, 9, 12]
    errors = [(table[name] - table["real"]).abs().sum() for name in ("first", "second")]
    assert errors[1] < 0.3 * errors[0]
