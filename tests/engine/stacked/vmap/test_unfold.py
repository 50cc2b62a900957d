from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from truerisk.engine.stacked.vmap.batching_rules import conv1d

LENGTH = 13


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "kernel"),
    [
        (s, p, d, k)
        for s, p, d, k in itertools.product((1, 2, 3), (0, 1, 5), (1, 3), (1, 3, 4))
        if d * (k - 1) < LENGTH + 2 * p
    ],
)
def test_a_convolution_of_members_is_each_ones_own(stride, padding, dilation, kernel):
    draw = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()

    x, weight, bias = leaf(2, 3, 4, LENGTH), leaf(2, 5, 4, kernel), leaf(2, 5)
    ours = conv1d(x, weight, bias, stride, padding, dilation)
    each = [F.conv1d(*t, stride, padding, dilation) for t in zip(x, weight, bias, strict=True)]
    theirs = torch.stack(each)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    leaves, along = (x, weight, bias), torch.randn(ours.shape, generator=draw, dtype=ours.dtype)
    found = (torch.autograd.grad(out, leaves, along) for out in (ours, theirs))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*found, strict=True))
