"""Parameters without a dimension under diagnostics that see J as a function of a vector."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

SEVEN = "critical_point,curvature,flatness,gradient_noise,landscape,spectrum,taylor"
GIVEN = [
    *("data=iris", "model=linear", "optimizer=gd", "trainer.precision=64-true"),
    *("trainer.max_epochs=1", f"diagnostics=[{SEVEN}]", "data.num_train=20"),
    *("diagnostics.gradient_noise.samples=8", "diagnostics.landscape.points=5"),
]


class Gain(nn.Module):
    """A network with a gain that has the shape [1]."""

    shape = (1,)

    def __init__(self, input_shape, output_size, bias):
        super().__init__()
        self.first = nn.Linear(input_shape[0], 4)
        self.gain = nn.Parameter(torch.full(self.shape, 1.5))
        self.last = nn.Linear(4, output_size)

    def forward(self, x):
        return self.last(torch.tanh(self.gain * self.first(x)))


class ScalarGain(Gain):
    """The same with a gain of no dimension."""

    shape = ()


def test_a_gain_of_no_dimension_is_one_of_one(run, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Gain.__module__])
    vector, scalar = (
        run(*GIVEN, f"model._target_={__name__}.{kind.__name__}").history
        for kind in (Gain, ScalarGain)
    )
    assert list(vector.name) == list(scalar.name)
    seen = {name.partition("/")[0] for name in scalar.name}
    assert {*SEVEN.split(",")} - {"landscape"} <= seen
    # the search of the box, and Lanczos, end within their tolerances
    np.testing.assert_allclose(scalar.value, vector.value, rtol=1e-6, atol=1e-9)
