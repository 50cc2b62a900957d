"""Ordered rules that give groups of parameters their own numbers: the first match wins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from truerisk.core.errors import ConfigError

MATCHERS = ("name", "min_ndim", "max_ndim", "optional")


def rule_matches(rule: Mapping[str, Any], name: str, parameter: Tensor) -> bool:
    """Decide whether a rule's regular expression and dimension bounds fit a parameter.

    Args:
        rule: a mapping with any of ``name``, ``min_ndim`` and ``max_ndim``.
        name: the parameter's name.
        parameter: the parameter.

    Returns:
        Whether it fits all that the rule has.

    Raises:
        ConfigError: ``name`` is no regular expression.
    """
    if rule.get("name") is not None and not _compile_pattern(rule["name"]).search(name):
        return False
    low, high = rule.get("min_ndim"), rule.get("max_ndim")
    return (low is None or parameter.ndim >= low) and (high is None or parameter.ndim <= high)


def _compile_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"the parameter rule's name {text!r} is no regular expression: {error}"
        ) from None


def split_parameters(
    named: Iterable[tuple[str, Tensor]], rules: Sequence[Mapping[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Partition parameters by the first rule that matches; what none matches goes first.

    Args:
        named: the parameters with their names.
        rules: mappings with any of ``name`` (a regular expression searched in the parameter's
            name), ``min_ndim`` and ``max_ndim``; other keys are the numbers a rule sets.

    Returns:
        ``(numbers, parameters)`` pairs that cover every parameter exactly once, empty ones left
        out.

    Raises:
        ConfigError: a rule matches nothing and is not marked ``optional: true``.

    >>> import torch
    >>> named = [("fc.weight", torch.ones(2, 2)), ("fc.bias", torch.ones(2))]
    >>> groups = split_parameters(named, [{"max_ndim": 1, "lr": 0.1}])
    >>> [(numbers, list(group)) for numbers, group in groups]
    [({}, ['fc.weight']), ({'lr': 0.1}, ['fc.bias'])]
    """
    groups: list[dict[str, Tensor]] = [{} for _ in range(len(rules) + 1)]
    for name, parameter in named:
        fitting = (i for i, rule in enumerate(rules, 1) if rule_matches(rule, name, parameter))
        first_fitting = next(fitting, 0)  # group 0 is for what no rule matches
        groups[first_fitting][name] = parameter
    for rule, group in zip(rules, groups[1:], strict=True):
        if not group and not rule.get("optional"):
            raise ConfigError(
                f"the parameter rule {dict(rule)} matches no parameter that an earlier rule left; "
                "change it, move it up, or mark it optional: true"
            )
    numbers: list[dict[str, Any]] = [{}]
    numbers += [{k: v for k, v in rule.items() if k not in MATCHERS} for rule in rules]
    return [(n, group) for n, group in zip(numbers, groups, strict=True) if group]
