from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator
from truerisk.data.partition import choose_subset, partition_rows
from truerisk.task import get_task

COUNTS = [
    [50, 50, 50],
    [212, 357],
    [10, 10, 10, 10, 7],
    [400, *[5] * 20],
    [3, 4, 5, 6, 7, 100],
    [33, 17, 9, 91],
]


def labels(counts):
    y = torch.cat([torch.full((c,), k) for k, c in enumerate(counts)])
    return y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("val", "test"), [(0.2, 0.2), (0.1, 0.3), (17, 0.25), (0.2, None)])
def test_every_split_has_each_class_in_proportion(counts, val, test):
    y = labels(counts)
    try:
        rows = partition_rows(y, val, test, named_generator(0, "split"))
    except ConfigError:
        assert min(counts) < 5
        return
    parts = [part for part in rows if part is not None]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(y)))
    for part in parts:
        assert torch.equal(part, part.sort().values)
        exact = torch.tensor(counts) * len(part) / len(y)
        assert ((torch.bincount(y[part], minlength=len(counts)) - exact).abs() < 1).all()


@pytest.mark.parametrize("n", [3, 10, 1001])
def test_plain_draws_are_those_of_one_class(n):
    rows = [partition_rows(torch.full((n,), k), 1, 1, named_generator(n, "split")) for k in (0, 1)]
    assert all(map(torch.equal, *rows))


def test_sizes_are_exact():
    rows = partition_rows(labels([100, 100]), 0.25, 30, named_generator(1, "split"))
    assert (len(rows.val), len(rows.test), len(rows.train)) == (50, 30, 120)


def test_another_seed_draws_another_split():
    y = labels([100, 100])
    a, b = (partition_rows(y, 0.2, 0.2, named_generator(s, "split")) for s in (0, 1))
    assert not torch.equal(a.val, b.val)


def test_a_regression_is_split_at_random():
    y = torch.randn(1000, 1, generator=torch.Generator().manual_seed(2))
    assert get_task("regression").strata(y) is None
    rows = partition_rows(
        torch.zeros(1000, dtype=torch.long), 0.2, 0.2, named_generator(0, "split")
    )
    assert [len(r) for r in rows] == [600, 200, 200]
    means = torch.stack([r.double().mean() for r in rows])
    assert ((means - 499.5).abs() < 4 * 288.7 / torch.tensor([600, 200, 200]).sqrt()).all()


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("m", [1, 7, 19])
def test_subsets_are_nested_and_near_proportion(counts, m):
    y = labels(counts)
    small, large = (choose_subset(y, k, named_generator(0, "num_train")) for k in (m, m + 5))
    assert set(small.tolist()) < set(large.tolist()) and len(small) == m
    exact = torch.tensor(counts) * m / len(y)
    if min(counts) > 0.05 * sum(counts):
        assert ((torch.bincount(y[small], minlength=len(counts)) - exact).abs() <= 1).all()


def test_a_class_too_small_is_named():
    with pytest.raises(ConfigError, match="class 'rare' has 2 of the 3 samples"):
        partition_rows(labels([50, 2]), 0.2, 0.2, named_generator(0, "s"), ["common", "rare"])


def test_a_class_without_training_samples_is_named():
    with pytest.raises(ConfigError, match="class 'b' would have no training sample"):
        partition_rows(labels([7, 2]), 7, None, named_generator(0, "s"), ["a", "b"])
