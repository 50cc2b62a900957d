"""Penalties on the parameters alone, against their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.regularizer import L1, L2, ElasticNet, Forward, GroupLasso, Orthogonality

WEIGHTS_ONLY = [{"max_ndim": 1, "coefficient": 0, "optional": True}]
PENALTIES = [L1, L2, ElasticNet, GroupLasso, Orthogonality]


def of(regularizer, params):
    batch = Batch(torch.zeros(1, 1), torch.zeros(1))
    return regularizer.penalty(Forward(params, batch, torch.zeros(1, 1), lambda x: x))


@pytest.fixture
def params():
    torch.manual_seed(2)
    shapes = {"a.weight": (5, 3), "a.bias": (5,), "b.weight": (4, 2, 3)}
    return {n: torch.randn(s, dtype=torch.float64, requires_grad=True) for n, s in shapes.items()}


def by_numpy(params):
    weights = [params[n].detach().numpy() for n in ("a.weight", "b.weight")]
    l1 = sum(np.abs(w).sum() for w in weights)
    l2 = sum((w**2).sum() for w in weights)
    rows = [w.reshape(len(w), -1) for w in weights]
    group = sum(np.sqrt(r.shape[1]) * np.linalg.norm(row) for r in rows for row in r)
    sigmas = [np.linalg.svd(r, compute_uv=False) for r in rows]
    soft = sum(((s**2 - 1) ** 2).sum() for s in sigmas)
    return {
        L1: 0.3 * l1,
        L2: 0.5 * 0.3 * l2,
        ElasticNet: 0.3 * (0.5 * l1 + 0.25 * l2),
        GroupLasso: 0.3 * group,
        Orthogonality: 0.3 * soft,
    }


@pytest.mark.parametrize("kind", PENALTIES)
def test_value(kind, params):
    value = of(kind(0.3, rules=WEIGHTS_ONLY), params)
    assert value.shape == ()
    assert float(value.detach()) == pytest.approx(by_numpy(params)[kind], rel=1e-12)


def rows(w):
    return w.reshape(len(w), -1)


def soft_gradient(w):
    m = rows(w)
    return (4 * (m @ m.T @ m - m)).reshape(w.shape)


GRADIENTS = {
    L1: torch.sign,
    L2: lambda w: w,
    ElasticNet: lambda w: 0.5 * w.sign() + 0.5 * w,
    GroupLasso: lambda w: (
        rows(w).shape[1] ** 0.5 * (rows(w) / rows(w).norm(dim=1, keepdim=True)).reshape(w.shape)
    ),
    Orthogonality: soft_gradient,
}


@pytest.mark.parametrize("kind", PENALTIES)
def test_gradient(kind, params):
    value = of(kind(0.3, rules=WEIGHTS_ONLY), params)
    gradients = torch.autograd.grad(value, list(params.values()), allow_unused=True)
    for (name, w), gradient in zip(params.items(), gradients, strict=True):
        if w.ndim == 1:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, 0.3 * GRADIENTS[kind](w.detach()), msg=name)


@pytest.mark.parametrize("kind", PENALTIES)
def test_gradient_at_zero_is_zero(kind):
    w = torch.zeros(3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(of(kind(1.0), {"w": w}), w)
    assert torch.equal(gradient, torch.zeros(3, 3))


@pytest.mark.parametrize("kind", PENALTIES)
def test_maps_over_stacked_parameters(kind, params):
    regularizer = kind(0.3, rules=WEIGHTS_ONLY)
    stacked = {n: torch.stack([p.detach(), 2 * p.detach()]) for n, p in params.items()}
    gradients, values = torch.vmap(torch.func.grad_and_value(lambda p: of(regularizer, p)))(stacked)
    for i in range(2):
        single = {n: p[i].clone().requires_grad_() for n, p in stacked.items()}
        value = of(regularizer, single)
        value.backward()
        torch.testing.assert_close(values[i], value.detach())
        for name, p in single.items():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(gradients[name][i], expected)


def test_strength_may_be_mapped_too(params):
    def penalty(coefficient):
        l2 = L2(1.0)
        l2.coefficient = coefficient
        return of(l2, params)

    values = torch.vmap(penalty)(torch.tensor([1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(values[1], 3 * values[0])


@pytest.mark.parametrize("kind", PENALTIES)
def test_hessian_vector_product(kind, params):
    regularizer, w = kind(0.3), params["a.weight"].detach()
    direction = torch.randn_like(w)

    def gradient(w):
        return torch.func.grad(lambda w: of(regularizer, {"w": w}))(w)

    _, product = torch.func.jvp(gradient, (w,), (direction,))
    h = 1e-6
    numeric = (gradient(w + h * direction) - gradient(w - h * direction)) / (2 * h)
    torch.testing.assert_close(product, numeric, atol=1e-6, rtol=1e-5)


def test_rules_give_groups_their_own_numbers(params):
    rules = [{"name": r"^b\.", "coefficient": 2.0}, {"max_ndim": 1, "coefficient": None}]
    expected = 0.5 * (params["a.weight"].square().sum() + 2 * params["b.weight"].square().sum())
    torch.testing.assert_close(of(L2(1.0, rules), params), expected)


def test_rules_may_set_the_elastic_nets_ratio(params):
    rules = [{"name": "b.weight", "l1_ratio": 1.0}, {"min_ndim": 1, "l1_ratio": 0.0}]
    w, v, b = params["a.weight"], params["b.weight"], params["a.bias"]
    expected = v.abs().sum() + 0.5 * (w.square().sum() + b.square().sum())
    torch.testing.assert_close(of(ElasticNet(1.0, rules=rules), params), expected)


def test_rules_are_matched_once_and_again_for_other_parameters(params):
    l2 = L2(1.0, WEIGHTS_ONLY)
    first = l2.groups(params)
    assert l2.groups({n: p * 2 for n, p in params.items()}) is first
    assert [g.names for g in l2.groups({"v": torch.ones(2, 2)})] == [("v",)]


def test_no_parameter_left_is_no_penalty(params):
    assert float(of(L1(1.0, [{"coefficient": 0}]), params)) == 0


def test_a_rule_that_matches_nothing_is_refused(params):
    with pytest.raises(ConfigError, match="matches no parameter"):
        of(L1(1.0, [{"name": "nowhere", "coefficient": 0}]), params)


@pytest.mark.parametrize("kind", PENALTIES)
def test_misspelt_and_wrong_numbers_are_refused(kind):
    with pytest.raises(ConfigError, match=rf"{kind.key}\.rules .*did you mean 'coefficient'"):
        kind(1.0, rules=[{"coeficient": 0}])
    with pytest.raises(ConfigError, match=rf"{kind.key}\.coefficient"):
        kind(-1.0)
    with pytest.raises(ConfigError, match=rf"{kind.key}\.rules: coefficient"):
        kind(1.0, rules=[{"coefficient": "much"}])


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_l1_ratio_is_a_share(ratio):
    with pytest.raises(ConfigError, match="l1_ratio"):
        ElasticNet(1.0, ratio)
    with pytest.raises(ConfigError, match="l1_ratio"):
        ElasticNet(1.0, rules=[{"l1_ratio": ratio}])


def test_group_lasso_takes_a_vector_entry_by_entry():
    w = torch.tensor([3.0, -4.0])
    torch.testing.assert_close(of(GroupLasso(1.0), {"w": w}), of(L1(1.0), {"w": w}))


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal_weights_cost_nothing(shape):
    w = nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64))
    orthogonality = Orthogonality(1.0)
    assert float(of(orthogonality, {"w": w})) < 1e-25
    assert float(of(orthogonality, {"w": w * 1.1, "bias": torch.ones(3)})) > 0.1


def test_orthogonality_keeps_its_precision_under_autocast():
    w = nn.init.orthogonal_(torch.empty(16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(of(Orthogonality(1.0), {"w": w})) < 1e-10


def test_gradient_descent_on_l2_is_coupled_weight_decay(params):
    start = params["a.weight"].detach()
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    a, b = torch.optim.SGD([ours], lr=0.1), torch.optim.SGD([theirs], lr=0.1, weight_decay=0.3)
    l2 = L2(0.3)
    for _ in range(5):
        for optimizer, w, extra in ((a, ours, True), (b, theirs, False)):
            optimizer.zero_grad()
            loss = w.sin().sum()
            (loss + of(l2, {"w": w}) if extra else loss).backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
