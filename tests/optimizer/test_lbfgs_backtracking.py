"""L-BFGS with backtracking: its direction, its safeguards, and where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from truerisk.optimizer import LBFGSBacktracking
from truerisk.optimizer.lbfgs_backtracking import remember_pair, two_loop_product

LINEAR = ["data=wine", "model=linear", "regularizer=l2", "regularizer.l2.coefficient=0.01"]


def closure_of(function, w):
    def closure():
        w.grad = None
        value = function(w)
        value.backward()
        return value

    return closure


def rosenbrock(w):
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def test_direction_is_that_of_the_dense_formula():
    """H ← (I − ρsyᵀ) H (I − ρysᵀ) + ρssᵀ from H = γI (Nocedal & Wright, eq. 7.16)."""
    torch.manual_seed(0)
    m = torch.randn(7, 7, dtype=torch.float64)
    A, eye = m @ m.T + torch.eye(7), torch.eye(7, dtype=torch.float64)
    steps = [torch.randn(7, dtype=torch.float64) for _ in range(4)]
    pairs = [(s, A @ s) for s in steps]
    s, y = pairs[-1]
    H = (s @ y) / (y @ y) * eye
    for s, y in pairs:
        V = eye - torch.outer(y, s) / (s @ y)
        H = V.T @ H @ V + torch.outer(s, s) / (s @ y)
    g = torch.randn(7, dtype=torch.float64)
    torch.testing.assert_close(two_loop_product(g, pairs), H @ g, rtol=1e-12, atol=1e-12)


def test_only_pairs_with_positive_curvature_are_remembered():
    s, pairs = torch.tensor([1.0, 0.0], dtype=torch.float64), []
    remember_pair(pairs, s, -s)
    remember_pair(pairs, s, s.flip(0))
    remember_pair(pairs, s, s * 0)
    assert pairs == []
    remember_pair(pairs, s, s + 9 * s.flip(0))
    assert len(pairs) == 1


def test_history_is_bounded():
    w = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LBFGSBacktracking([w], history_size=3)
    for _ in range(8):
        optimizer.step(closure_of(rosenbrock, w))
    assert len(optimizer.state[w]["pairs"]) == 3


def test_a_direction_that_climbs_is_given_up_for_the_gradient():
    w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LBFGSBacktracking([w])
    s = torch.tensor([1.0, 1.0], dtype=torch.float64)
    optimizer.state[w]["pairs"] = [(s, -s)]
    optimizer.step(closure_of(lambda w: (w**2).sum() / 2, w))
    g = torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(w.detach(), g - g / g.norm())
    ((s, y),) = optimizer.state[w]["pairs"]
    torch.testing.assert_close(s, y)
    torch.testing.assert_close(s, -g / g.norm())


def test_rosenbrock():
    w = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LBFGSBacktracking([w])
    for _ in range(60):
        optimizer.step(closure_of(rosenbrock, w))
    torch.testing.assert_close(w.detach(), torch.ones_like(w), rtol=0, atol=1e-10)


def test_logistic_regression(stepping, micro_batches):
    """Multinomial: 1/n Σ cross-entropy + ½λ‖W‖² is scikit-learn's with C = 1/(nλ)."""
    recipe, step = stepping(*LINEAR, "optimizer=lbfgs_backtracking")
    x, y = recipe.data.train.x.flatten(1).numpy(), recipe.data.train.y.numpy()
    theirs = LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-12, max_iter=10_000).fit(x, y)
    w, b = theirs.coef_, theirs.intercept_
    scores = x @ w.T + b
    risk = (np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y]).mean()
    for micro in micro_batches(recipe, 60):
        step(micro)
    end = step.value(micro).item()
    assert end == pytest.approx(risk + 0.005 * (w**2).sum(), rel=0, abs=1e-8)
    torch.testing.assert_close(
        recipe.model.output.weight.detach(), torch.from_numpy(w), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_of_a_pair_are_of_one_function(stepping, micro_batches, dropout):
    """y is ∇J at both ends of the step under the same dropout mask."""
    given = ["data=iris", "model.width=6", "model.activation=tanh", "optimizer=lbfgs_backtracking"]
    recipe, step = stepping(*given, f"regularizer={['', 'dropout'][dropout] or '[]'}")
    recipe.model.train()
    take, noted = step.optimizer.step, []

    def watching(closure):
        start = closure()
        g = torch.cat([p.grad.reshape(-1) for p in step.params]).clone()
        take(closure)
        closure()
        noted.append(torch.cat([p.grad.reshape(-1) for p in step.params]) - g)
        return start

    step.optimizer.step = watching
    for micro in micro_batches(recipe, 5):
        step(micro)
    _, y = step.optimizer.state[step.params[0]]["pairs"][-1]
    torch.testing.assert_close(y, noted[-1], rtol=0, atol=1e-14)
