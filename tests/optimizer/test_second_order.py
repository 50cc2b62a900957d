"""What Newton-type optimizers share: Armijo's inequality, known optima, refusals, their state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from truerisk.core.errors import ConfigError
from truerisk.optimizer import KFAC, GaussNewton, Newton, NewtonCG
from truerisk.optimizer.line_search import rounding

KFAC_SEARCH = [
    "optimizer=kfac",
    "optimizer.control=search",
    "optimizer.lr=1",
    "optimizer.decay=0.5",
    "optimizer.inverse_every=1",
    "data.batch_size=full",
]
"""What conf/optimizer/kfac.yaml recommends for the full batch."""
SEARCHES = {
    "newton": ["optimizer=newton"],
    "saddle-free": ["optimizer=newton", "optimizer.saddle_free=true"],
    "newton_cg": ["optimizer=newton_cg", "optimizer.method=line_search"],
    "gauss_newton": ["optimizer=gauss_newton"],
    "kfac": KFAC_SEARCH,
}
TRUST = {"trust region": ["optimizer=newton_cg"]}
NAMES = ["newton", "newton_cg", "gauss_newton", "kfac"]
KINDS = [Newton, NewtonCG, GaussNewton, KFAC]


def watched(stepping, micro_batches, steps, *given):
    """Each step of a real run: J and ∇J where it begins, what it moved by, and J at its end."""
    recipe, step = stepping(*given)
    recipe.model.train()
    torch.manual_seed(0)
    take, seen = step.optimizer.step, []

    def watching(problem):
        before = problem.copy_weights()
        take(problem)
        after = problem.copy_weights()
        seen.append((problem.value(), problem.gradient(), after - before, problem.value(after)))

    step.optimizer.step = watching
    for micro in micro_batches(recipe, steps):
        step(micro)
    return seen, step


NOISY = ["data=iris", "model.width=6", "model.activation=tanh", "regularizer=[l2,dropout]"]


@pytest.mark.parametrize("given", SEARCHES.values(), ids=SEARCHES)
def test_every_step_decreases_enough(given, stepping, micro_batches):
    """Armijo: J(w + p) ≤ J(w) + 10⁻⁴ ∇Jᵀp, under the step's own dropout mask."""
    seen, step = watched(stepping, micro_batches, 40, *NOISY, *given)
    for value, gradient, p, after in seen:
        slope = (gradient @ p).item()
        assert slope < 0
        assert after.item() <= value.item() + 1e-4 * slope + rounding(value)
    assert 0 < step.optimizer.group["step_length"] <= 1


@pytest.mark.parametrize("given", SEARCHES.values(), ids=SEARCHES)
def test_steps_make_headway(given, stepping, micro_batches):
    """J falls for good where no mask is drawn; under dropout each step has a J of its own."""
    plain = [*NOISY[:-1], "regularizer=[l2]", "data.batch_size=full"]
    seen, _ = watched(stepping, micro_batches, 40, *plain, *given)
    assert seen[-1][-1] < 0.1 * seen[0][0]


@pytest.fixture(scope="module")
def logistic(assembled):
    """scikit-learn's optimum of L2 logistic regression: the overrides, J* and W*."""
    given = ["data=wine", "model=linear", "regularizer=l2", "regularizer.l2.coefficient=0.01"]
    train = assembled(*given).data.train
    x, y = train.x.flatten(1).numpy(), train.y.numpy()
    theirs = LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-12, max_iter=10_000).fit(x, y)
    w, scores = theirs.coef_, x @ theirs.coef_.T + theirs.intercept_
    risk = (np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y]).mean()
    return given, risk + 0.005 * (w**2).sum(), torch.from_numpy(w)


@pytest.mark.parametrize("given", (SEARCHES | TRUST).values(), ids=SEARCHES | TRUST)
def test_logistic_regression(given, logistic, stepping, micro_batches, objective_value):
    """Multinomial: 1/n Σ cross-entropy + ½λ‖W‖² is scikit-learn's with C = 1/(nλ)."""
    problem, optimum, weights = logistic
    recipe, step = stepping(*problem, *given)
    steps = 60 if "optimizer=kfac" in given else 30
    for micro in micro_batches(recipe, steps):
        step(micro)
    assert objective_value(step, micro) == pytest.approx(optimum, rel=0, abs=1e-8)
    found = recipe.model.output.weight.detach()
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-4)


IRIS_227 = ["data=iris", "model.depth=1", "model.width=28", "regularizer=[]"]


@pytest.mark.parametrize(
    ("given", "end"), [(KFAC_SEARCH, 1e-3), (["optimizer=gauss_newton"], 1e-3)], ids=["kfac", "gn"]
)
def test_thirty_steps_on_a_small_classifier(given, end, stepping, micro_batches):
    """227 weights, 90 samples: gradient descent is at about 0.4 by then."""
    seen, step = watched(stepping, micro_batches, 30, *IRIS_227, *given)
    assert sum(p.numel() for p in step.params) == 227
    assert all(after <= value + rounding(value) for value, _, _, after in seen)
    assert seen[0][0] > 1 and seen[-1][3] < end


def test_a_raw_kfac_step_diverges(stepping, micro_batches):
    """Damping and step control are part of the method: the same classifier without either."""
    raw = ["optimizer.lr=1", "optimizer.momentum=0", "optimizer.kl_clip=1e9", "optimizer.decay=0"]
    raw += ["optimizer.adapt_every=null", "optimizer.damping=1e-3", "optimizer.inverse_every=1"]
    given = [*IRIS_227, "optimizer=kfac", *raw, "data.batch_size=full"]
    seen, _ = watched(stepping, micro_batches, 10, *given)
    assert max(after for *_, after in seen) > 5 * seen[0][0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["trainer.precision=bf16-mixed"], "use 32-true or 64-true"),
        (["trainer.precision=16-mixed"], "32-true"),
        (["step.clip.norm=1"], r"step\.clip\.norm"),
        (["compile=true"], "compile=false"),
        (["recompute=true"], "recompute=false"),
        (["param_groups.rules=[{max_ndim: 1, lr: 0.1}]"], "param_groups"),
    ],
)
def test_refusals(name, given, message, stepping):
    with pytest.raises(ConfigError, match=message):
        stepping("data=iris", "regularizer=[]", f"optimizer={name}", *given)


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_and_whole_parameters(kind):
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    with pytest.raises(ConfigError, match="param_groups=all"):
        kind([{"params": [a]}, {"params": [b]}])
    a.full_tensor = None
    with pytest.raises(ConfigError, match="trainer=fsdp"):
        kind([a])


@pytest.mark.parametrize("given", (SEARCHES | TRUST).values(), ids=SEARCHES | TRUST)
def test_state_round_trip(given, stepping, micro_batches, tmp_path):
    recipe, step = stepping(*IRIS_227, *given)
    torch.manual_seed(0)
    micro = list(micro_batches(recipe, 10))
    for batches in micro[:5]:
        step(batches)
    torch.save(step.optimizer.state_dict(), tmp_path / "state.pt")
    again, resumed = stepping(*IRIS_227, *given)
    again.model.load_state_dict(recipe.model.state_dict())
    resumed.optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for run in (step, resumed):
        torch.manual_seed(1)
        for batches in micro[5:]:
            run(batches)
    assert all(map(torch.equal, step.params, resumed.params))
