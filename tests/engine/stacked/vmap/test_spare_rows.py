from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from truerisk.engine.stacked.vmap.dropout_streams import DropoutStreams
from truerisk.engine.stacked.vmap.spare_rows import SpareRows, add_rows
from truerisk.engine.stacked.vmap.traced_function import TracedFunction

RUN = 32
"""Numbers in single precision that are taken at a time, with registers of 256 bits."""


@pytest.fixture(autouse=True)
def registers(monkeypatch):
    monkeypatch.setattr("truerisk.engine.stacked.vmap.spare_rows.RUN", 4 * RUN)


@pytest.mark.parametrize(
    ("function", "shape", "count"),
    [
        # 31 numbers may be left over, which 3 rows of 13 hold, and one of 40
        (torch.tanh, (5, 13), 3),
        (torch.tanh, (5, 40), 1),
        # none is
        (torch.tanh, (32, 13), 0),
        (lambda x: x.double().tanh(), (16, 13), 0),
        (lambda x: x.double().tanh(), (15, 13), 2),
        # each has one right result
        (lambda x: (x * x + 1).sqrt().relu(), (5, 13), 0),
        (lambda x: x**2, (5, 13), 0),
        (lambda x: x**3, (5, 13), 3),
        # a member's sums lie side by side, and not with those of others; then with them
        (lambda x: x.sum(1), (5, 13, 7), 0),
        (lambda x: x.transpose(0, 1).contiguous().sum(0), (5, 13, 7), 5),
        (lambda x: torch.linalg.vector_norm(x, 2, 1), (5, 13, 7), 0),
        (lambda x: torch.linalg.vector_norm(x.transpose(0, 1).contiguous(), 2, 0), (5, 13, 7), 5),
        # of two results; of a number that is no member's
        (lambda x: torch.frexp(x)[0], (5, 13), 3),
        (lambda x: x + torch.ones(()).sum(-1), (5, 13), 0),
        # one member is no stack
        (torch.relu, (1, 32), 1),
    ],
)
def test_rows_are_added_where_a_members_numbers_would_be_left_over(function, shape, count):
    assert SpareRows(TracedFunction(lambda x: (function(x),))).count([torch.rand(shape)]) == count


def test_a_row_is_computed_as_with_others_after_it():
    x = torch.randn(6, 13, generator=torch.Generator().manual_seed(0))
    function = SpareRows(TracedFunction(lambda x: (F.softplus(x),)))

    def compute(x):
        return function([x])[0]

    whole = compute(x)
    parts = [compute(x[i : i + n]) for n in range(1, 6) for i in range(7 - n)]
    rows = [whole[i : i + n] for n in range(1, 6) for i in range(7 - n)]
    assert all(torch.equal(a, b) for a, b in zip(parts, rows, strict=True))


def test_what_is_moved_in_place_moves_once():
    def step(x, seen):
        seen.add_(x.mean(1))
        return (x.exp() + seen[:, None],)

    x, seen = torch.ones(3, 5), torch.zeros(3)
    function = SpareRows(TracedFunction(step), moved=slice(1, 2))
    (result,) = function([x, seen])
    assert seen.tolist() == [1, 1, 1]
    assert result.shape == (3, 5)


def test_the_look_that_counts_draws_nothing():
    streams = DropoutStreams([1, 2, 3])
    before = streams.state_dict()
    function = SpareRows(TracedFunction(lambda x: (x * streams.draw(5),)), undone=streams.undone)
    function.count([torch.ones(3, 5)])
    assert streams.state_dict() == before


def test_one_row_shown_often_is_not_copied():
    shown = torch.rand(1, 4).expand(3, 4)
    longer = add_rows(shown, 2)
    assert (longer.shape, longer.data_ptr()) == ((5, 4), shown.data_ptr())
    assert add_rows(torch.tensor([[1.0], [2.0]]), 1).tolist() == [[1], [2], [1]]
