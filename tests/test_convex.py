"""Convex problems end where scikit-learn says they do; three kinds of L2, and when they agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

CLASSIFIER = ["model=linear", "trainer.precision=64-true", "regularizer=[]"]
REGRESSOR = [*CLASSIFIER, "data=arrays", "loss=mse", "risk.train_samples=120"]
LBFGS = ["optimizer=lbfgs", "optimizer.max_iter=100", "optimizer.tolerance_grad=1e-12"]
LBFGS += ["optimizer.tolerance_change=1e-15", "trainer.max_epochs=10"]


def training_set(assembled, given):
    train = assembled(*given).data.train
    return train.x.flatten(1).numpy(), train.y.numpy()


def reached(result, series):
    """J at the end of training: risk/train is measured on the whole training set."""
    assert series(result, "risk/train/stderr").iloc[-1] == 0
    return series(result, "objective").iloc[-1]


def log_loss(x, y, w, b):
    """Mean cross-entropy of outputs x wᵀ + b with classes y."""
    scores = x @ w.T + b
    return (np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y]).mean()


@pytest.mark.parametrize(
    ("solver", "penalty"),
    [
        (LBFGS, 0.01),
        (["optimizer=gd", "optimizer.lr=0.7", "trainer.max_epochs=800", "risk.every=800"], 0.05),
        (["optimizer=nesterov", "optimizer.lr=0.3", "data.batch_size=full"], 0.05),
    ],
    ids=["lbfgs", "gd", "nesterov"],
)
def test_l2_logistic_regression(run, series, assembled, solver, penalty):
    """Multinomial: 1/n Σ cross-entropy + ½λ‖W‖² is scikit-learn's with C = 1/(nλ)."""
    given = ["data=wine", *CLASSIFIER, "trainer.max_epochs=250", "risk.train_samples=106", *solver]
    given += ["regularizer=l2", f"regularizer.l2.coefficient={penalty}"]
    x, y = training_set(assembled, given)
    theirs = LogisticRegression(C=1 / (len(y) * penalty), tol=1e-10, max_iter=10_000).fit(x, y)
    w = theirs.coef_
    optimum = log_loss(x, y, w, theirs.intercept_) + 0.5 * penalty * (w**2).sum()
    result = run(*given)
    assert reached(result, series) == pytest.approx(optimum, rel=0, abs=1e-6)
    start = series(result, "objective")[0]
    assert start > optimum + 0.1


def test_binary_logistic_regression_has_one_output(run, series, assembled):
    given = ["data=breast_cancer", *CLASSIFIER, "loss=bce", "risk.train_samples=341", *LBFGS]
    given += ["regularizer=l2", "regularizer.l2.coefficient=0.01"]
    x, y = training_set(assembled, given)
    theirs = LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-10, max_iter=10_000).fit(x, y)
    w = theirs.coef_[0]
    margins = (2 * y - 1) * (x @ w + theirs.intercept_)
    optimum = np.logaddexp(0, -margins).mean() + 0.005 * (w**2).sum()
    assert reached(run(*given), series) == pytest.approx(optimum, rel=0, abs=1e-6)


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """200 samples, 20 correlated features, of which 5 count."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((200, 20)) @ (np.eye(20) + 0.3 * draw.standard_normal((20, 20)))
    y = x[:, :5] @ np.array([1.0, -2.0, 0.5, 0.0, 1.5]) + 3 + draw.standard_normal(200)
    path = tmp_path_factory.mktemp("data") / "regression.npz"
    np.savez(path, x=x, y=y)
    return [f"data.source.path={path}", "data.standardize_target=false"]


def test_ridge(run, series, assembled, regression):
    """1/n‖y − Xw − b‖² + ½λ‖w‖² is scikit-learn's with α = nλ/2, over n."""
    given = [*REGRESSOR, *regression, *LBFGS, "regularizer=l2", "regularizer.l2.coefficient=0.3"]
    x, y = training_set(assembled, given)
    theirs = Ridge(alpha=len(y) * 0.15, solver="cholesky").fit(x, y[:, 0])
    residuals = y[:, 0] - theirs.predict(x)
    optimum = (residuals**2).mean() + 0.15 * (theirs.coef_**2).sum()
    assert reached(run(*given), series) == pytest.approx(optimum, rel=0, abs=1e-9)


@pytest.mark.parametrize("ratio", [0.5, 1.0], ids=["elastic net", "lasso"])
def test_elastic_net(run, series, assembled, regression, ratio):
    """1/n‖y − Xw − b‖² + λ(ρ‖w‖₁ + ½(1 − ρ)‖w‖²) is twice scikit-learn's with α = λ/2.

    Steps that shrink to nothing let the weights settle at the kinks.
    """
    given = [*REGRESSOR, *regression, "data.batch_size=full", "optimizer=nesterov"]
    given += ["optimizer.lr=0.05", "scheduler=exponential", "scheduler.gamma=0.992"]
    given += ["trainer.max_epochs=1800", "risk.every=1800", "regularizer=elastic_net"]
    given += [
        "regularizer.elastic_net.coefficient=0.4",
        f"regularizer.elastic_net.l1_ratio={ratio}",
    ]
    x, y = training_set(assembled, given)
    theirs = ElasticNet(alpha=0.2, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(x, y[:, 0])
    w = theirs.coef_
    penalty = 0.4 * (ratio * np.abs(w).sum() + 0.5 * (1 - ratio) * (w**2).sum())
    optimum = ((y[:, 0] - theirs.predict(x)) ** 2).mean() + penalty
    assert (w == 0).sum() >= 3
    result = run(*given)
    assert reached(result, series) == pytest.approx(optimum, rel=0, abs=1e-6)


class DecoupledSGD(torch.optim.SGD):
    """w ← (1 − shrink)w − lr∇J."""

    def __init__(self, params, lr, shrink):
        super().__init__(params, lr=lr)
        self.shrink = shrink

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - self.shrink)
        return super().step(closure)


@pytest.fixture(scope="module")
def ends(run, last_weights):
    """Where 60 steps with each kind of L2 lead."""
    common = ["data=iris", "model.width=6", "model.activation=tanh", "data.batch_size=25"]
    common += ["trainer.precision=64-true", "trainer.max_epochs=15"]
    decay, decayed, everywhere = 0.1, "optimizer.weight_decay=0.1", "regularizer.l2.rules=[]"
    given = {
        "sgd": ["optimizer=sgd", "optimizer.lr=0.2"],
        "sgd coupled": ["optimizer=sgd", "optimizer.lr=0.2", decayed],
        "sgd decoupled": [
            "optimizer=custom",
            f"optimizer._target_={__name__}.DecoupledSGD",
            "+optimizer.lr=0.2",
            f"+optimizer.shrink={0.2 * decay}",
        ],
        "adam coupled": ["optimizer=adam", "optimizer.lr=0.01", decayed],
        "adam decoupled": ["optimizer=adamw", "optimizer.lr=0.01", decayed],
    }
    penalised = ["regularizer=l2", f"regularizer.l2.coefficient={decay}", everywhere]
    given["sgd penalty"] = [*given["sgd"], *penalised]
    given["adam penalty"] = ["optimizer=adam", "optimizer.lr=0.01", *penalised]
    results = {name: run(*common, "regularizer=[]", *more) for name, more in given.items()}
    return {name: last_weights(result) for name, result in results.items()}


def distance(a, b):
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_coupled_decay_is_the_l2_penalty(ends):
    assert distance(ends["sgd coupled"], ends["sgd penalty"]) < 1e-12
    assert distance(ends["adam coupled"], ends["adam penalty"]) < 1e-12
    assert distance(ends["sgd"], ends["sgd penalty"]) > 0.05


def test_coupled_and_decoupled_decay_agree_for_sgd_only(ends):
    assert distance(ends["sgd coupled"], ends["sgd decoupled"]) < 1e-12
    assert distance(ends["adam coupled"], ends["adam decoupled"]) > 0.05
