"""All pairs modulo a prime, against Python's own arithmetic."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import modular_addition
from truerisk.data.modular import OPERATIONS

KNOWN = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: (a * b) % p,
    "divide": lambda a, b, p: a * pow(b, -1, p) % p,
    "sum_of_squares": lambda a, b, p: (a * a + b * b) % p,
    "quadratic": lambda a, b, p: (a * a + a * b + b * b) % p,
    "cubic": lambda a, b, p: (a**3 + a * b) % p,
}


@pytest.mark.parametrize("prime", [2, 13, 97])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_pair_once_with_its_result(operation, prime):
    samples = modular_addition(prime, operation)
    a, b = samples.x.unflatten(1, (2, prime)).argmax(2).T.tolist()
    least = int(operation == "divide")
    assert sorted(zip(a, b, strict=True)) == [
        (i, j) for i in range(prime) for j in range(least, prime)
    ]
    assert samples.x.sum(1).unique().tolist() == [2.0]
    known = [KNOWN[operation](i, j, prime) for i, j in zip(a, b, strict=True)]
    assert samples.y.tolist() == known


def test_the_population_is_uniform_over_pairs():
    p = modular_addition(5, "divide").population
    x, y = p.sample(40_000, torch.Generator().manual_seed(0))
    counts = x.sum(0).view(2, 5)
    assert counts[1, 0] == 0
    torch.testing.assert_close(counts[0], torch.full((5,), 8000.0), rtol=0.05, atol=0)
    torch.testing.assert_close(counts[1, 1:], torch.full((4,), 10000.0), rtol=0.05, atol=0)
    law = p.bayes(x)
    assert torch.equal(law.argmax(1), y) and law.sum(1).unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prime": 91}, "data.source.prime is 91, which is no prime"),
        ({"prime": 1}, "data.source.prime"),
        ({"prime": 503}, "at most 499"),
        ({"operation": "ad"}, "did you mean 'add'"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        modular_addition(**given)
