"""Shampoo and SOAP against their closed forms."""

from __future__ import annotations

import functools

import pytest
import pytorch_optimizer
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import Shampoo

soap = functools.partial(pytorch_optimizer.SOAP, weight_decay=0.0)


def gradients(*shape, count=4):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64) for _ in range(count)]


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def descend(optimizer, w, grads):
    for g in grads:
        w.grad = g.clone()
        optimizer.step()
    return w.detach()


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_shampoo_of_a_matrix(momentum):
    """W ← W − lr L^(−1/4) M R^(−1/4)."""
    grads, w = gradients(3, 5), zeros(3, 5)
    L, R = 0.1 * torch.eye(3).double(), 0.1 * torch.eye(5).double()
    M, W = torch.zeros(3, 5).double(), torch.zeros(3, 5).double()
    for g in grads:
        L, R, M = L + g @ g.T, R + g.T @ g, momentum * M + (1 - momentum) * g
        W = W - 0.3 * power(L, -1 / 4) @ M @ power(R, -1 / 4)
    optimizer = Shampoo([w], lr=0.3, momentum=momentum, eps=0.1)
    torch.testing.assert_close(descend(optimizer, w, grads), W, rtol=0, atol=1e-13)


def test_shampoo_of_a_convolution():
    """Four dimensions: four preconditioners to the power −1/8, each over slices of the kernel."""
    (g,), w = gradients(2, 3, 4, 5, count=1), zeros(2, 3, 4, 5)
    roots = []
    for d, size in enumerate(g.shape):
        slices = g.movedim(d, 0).reshape(size, -1)
        roots.append(power(0.1 * torch.eye(size).double() + slices @ slices.T, -1 / 8))
    expected = -torch.einsum("ijkl,ai,bj,ck,dl->abcd", g, *roots)
    found = descend(Shampoo([w], lr=1.0, eps=0.1), w, [g])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_shampoo_of_a_vector_is_full_matrix_adagrad():
    grads, w = gradients(4), zeros(4)
    total, W = 0.1 * torch.eye(4).double(), torch.zeros(4).double()
    for g in grads:
        total = total + torch.outer(g, g)
        W = W - 0.3 * power(total, -1 / 2) @ g
    torch.testing.assert_close(
        descend(Shampoo([w], lr=0.3, eps=0.1), w, grads), W, rtol=0, atol=1e-13
    )


def test_shampoo_of_a_number_is_adagrad():
    w = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    descend(
        Shampoo([w], lr=1.0, eps=0.0), w, [torch.tensor(3.0).double(), torch.tensor(4.0).double()]
    )
    assert w.item() == pytest.approx(-1 - 4 / 5)


def test_large_dimensions_are_left_alone():
    grads, w = gradients(3, 5), zeros(3, 5)
    L, W = 0.1 * torch.eye(3).double(), torch.zeros(3, 5).double()
    for g in grads:
        L = L + g @ g.T
        W = W - power(L, -1 / 4) @ g
    optimizer = Shampoo([w], lr=1.0, eps=0.1, max_size=4)
    torch.testing.assert_close(descend(optimizer, w, grads), W, rtol=0, atol=1e-13)


def test_roots_are_renewed_often_at_first():
    """In step 1 to 10 always, then once the sums have grown by a tenth, every ``every`` at last."""
    w, renewed, before = zeros(2, 2), [], None
    optimizer = Shampoo([w], every=4)
    for t, g in enumerate(gradients(2, 2, count=60)):
        descend(optimizer, w, [g])
        roots = optimizer.state[w]["roots"]
        if roots is not before:
            renewed.append(t)
        before = roots
    assert renewed == [*range(10), 10, 12, 14, 16, 18, 20, 23, 26, 29, *range(32, 60, 4)]


def test_decay_is_decoupled():
    w = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = Shampoo([w], lr=0.5, weight_decay=0.1)
    descend(optimizer, w, [torch.zeros(2, 2).double()])
    torch.testing.assert_close(w.detach(), torch.full_like(w, 0.95))


def test_rounding_does_not_make_roots_of_negative_numbers():
    """Rank one in float32, and sums far above ε."""
    g = 1e4 * torch.ones(50, 60)
    w = torch.zeros(50, 60, requires_grad=True)
    found = descend(Shampoo([w], lr=1.0), w, [g, g])
    torch.testing.assert_close(
        found, torch.full_like(g, -(1 + 0.5**0.5) / (50 * 60) ** 0.5), rtol=0.02, atol=0
    )


def test_soap_begins_by_setting_up_its_basis():
    """As in the paper's own code: no step from the gradient that gave the basis."""
    grads, w = gradients(4, 4), zeros(4, 4)
    descend(optimizer := soap([w], lr=0.1), w, grads[:1])
    assert not w.any()
    descend(optimizer, w, grads[1:2])
    assert w.all()


def test_soap_is_adam_in_the_basis_of_the_first_gradient():
    """Up to the first renewal of the basis; without ε, which Adam corrects for the start's bias."""
    first, *grads = gradients(4, 4)
    _, left = torch.linalg.eigh(first @ first.T)
    _, right = torch.linalg.eigh(first.T @ first)
    w, rotated = zeros(4, 4), zeros(4, 4)
    mine = descend(soap([w], lr=0.1, betas=(0.9, 0.95), eps=0.0), w, [first, *grads])
    adam = torch.optim.Adam([rotated], lr=0.1, betas=(0.9, 0.95), eps=0.0)
    expected = descend(adam, rotated, [left.T @ g @ right for g in grads])
    torch.testing.assert_close(mine, left @ expected @ right.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [functools.partial(Shampoo, every=2), soap])
def test_state_round_trip(kind, tmp_path):
    grads, shapes = gradients(3, 5, count=40), [(3, 5), (5,)]

    def fed(optimizer, params, part):
        for g in part:
            for p in params:
                p.grad = g.clone() if p.ndim == 2 else g[0].clone()
            optimizer.step()

    params = [zeros(*shape) for shape in shapes]
    optimizer = kind(params)
    fed(optimizer, params, grads[:15])
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = kind(others)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    fed(optimizer, params, grads[15:])
    fed(resumed, others, grads[15:])
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("numbers", [{"momentum": 1.5}, {"eps": -1.0}, {"every": 0}])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ConfigError, match=rf"optimizer\.{next(iter(numbers))}"):
        Shampoo([zeros(2)], **numbers)
