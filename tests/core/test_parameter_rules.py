"""Ordered rules: the first match wins, and every parameter has one place."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.core.parameter_rules import rule_matches, split_parameters

NAMED = [
    ("stem.weight", torch.zeros(4, 3, 5)),
    ("stem.bias", torch.zeros(4)),
    ("norm.weight", torch.zeros(4)),
    ("output.weight", torch.zeros(2, 4)),
    ("output.bias", torch.zeros(2)),
]


def names(rules):
    return [(numbers, list(group)) for numbers, group in split_parameters(NAMED, rules)]


def test_without_rules_all_are_together():
    assert names([]) == [({}, [name for name, _ in NAMED])]


def test_first_match_wins_and_the_rest_goes_first():
    found = names([{"name": "^output", "lr": 0.1}, {"max_ndim": 1, "lr": 0.2, "decay": 0}])
    assert found == [
        ({}, ["stem.weight"]),
        ({"lr": 0.1}, ["output.weight", "output.bias"]),
        ({"lr": 0.2, "decay": 0}, ["stem.bias", "norm.weight"]),
    ]


def test_order_of_rules_matters():
    found = names([{"max_ndim": 1, "lr": 0.2}, {"name": "^output", "lr": 0.1}])
    assert found[1:] == [
        ({"lr": 0.2}, ["stem.bias", "norm.weight", "output.bias"]),
        ({"lr": 0.1}, ["output.weight"]),
    ]


@pytest.mark.parametrize(
    "rules",
    [[], [{"min_ndim": 2}], [{"name": "bias"}, {"name": "weight"}], [{}], [{"max_ndim": 3}]],
    ids=str,
)
def test_every_parameter_is_covered_once(rules):
    covered = [name for _, group in split_parameters(NAMED, rules) for name in group]
    assert sorted(covered) == sorted(name for name, _ in NAMED)
    assert all(group for _, group in split_parameters(NAMED, rules))


def test_tensors_are_the_parameters_themselves():
    ((_, group),) = split_parameters(NAMED, [])
    assert all(group[name] is tensor for name, tensor in NAMED)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, True),
        ({"name": "weight$"}, True),
        ({"name": "^weight"}, False),
        ({"name": r"stem\.\w+"}, True),
        ({"min_ndim": 3}, True),
        ({"min_ndim": 4}, False),
        ({"max_ndim": 3}, True),
        ({"max_ndim": 2}, False),
        ({"min_ndim": 2, "max_ndim": 3}, True),
        ({"name": "stem", "max_ndim": 1}, False),
        ({"name": None, "min_ndim": None}, True),
    ],
    ids=str,
)
def test_matches(rule, expected):
    assert rule_matches(rule, *NAMED[0]) is expected


@pytest.mark.parametrize(
    "rules",
    [
        [{"name": "nothing"}],
        [{"name": "stem"}, {"name": "stem.bias"}],  # the first leaves nothing to the second
        [{"min_ndim": 4}],
    ],
    ids=str,
)
def test_a_rule_that_takes_nothing_is_an_error(rules):
    with pytest.raises(ConfigError, match=r"matches no parameter.*optional: true"):
        split_parameters(NAMED, rules)
    optional = [{**rule, "optional": True} for rule in rules]
    assert "optional" not in split_parameters(NAMED, optional)[0][0]


def test_a_malformed_expression_is_quoted():
    with pytest.raises(ConfigError, match=r"'stem\(' is no regular expression"):
        split_parameters(NAMED, [{"name": "stem("}])
