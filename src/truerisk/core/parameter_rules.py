"""Ordered rules that give groups of parameters their own numbers: the first match wins."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from truerisk.core.errors import ConfigError

MATCHERS = ("name", "min_ndim", "max_ndim", "optional")
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)


def find_norm_parameters(model: nn.Module) -> frozenset[str]:
    """Name the scales and biases of normalization layers, which may have several dimensions.

    >>> sorted(find_norm_parameters(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm([2, 3]))))
    ['1.bias', '1.weight']
    """
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, NORMS)]
    own = [(n, p) for n, layer in layers for p, _ in layer.named_parameters(recurse=False)]
    return frozenset(f"{n}.{p}" if n else p for n, p in own)


def rule_matches(
    rule: Mapping[str, Any], name: str, parameter: Tensor, norms: Collection[str] = ()
) -> bool:
    """Decide whether a rule's regular expression and dimension bounds fit a parameter.

    Args:
        rule: a mapping with any of ``name``, ``min_ndim`` and ``max_ndim``.
        name: the parameter's name.
        parameter: the parameter.
        norms: names of scales and biases of normalization layers. They count as one-dimensional:
            a factor for each position, and no matrix.

    Returns:
        Whether it fits all that the rule has.

    Raises:
        ConfigError: ``name`` is no regular expression.
    """
    if rule.get("name") is not None and not _compile_pattern(rule["name"]).search(name):
        return False
    low, high, ndim = rule.get("min_ndim"), rule.get("max_ndim"), parameter.ndim
    if name in norms:
        ndim = min(ndim, 1)
    return (low is None or ndim >= low) and (high is None or ndim <= high)


def _compile_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"the parameter rule's name {text!r} is no regular expression: {error}"
        ) from None


def split_parameters(
    named: Iterable[tuple[str, Tensor]],
    rules: Sequence[Mapping[str, Any]],
    norms: Collection[str] = (),
) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Partition parameters by the first rule that matches; what none matches goes first.

    Args:
        named: the parameters with their names.
        rules: mappings with any of ``name`` (a regular expression searched in the parameter's
            name), ``min_ndim`` and ``max_ndim``; other keys are the numbers a rule sets.
        norms: names of scales and biases of normalization layers, which count as one-dimensional.

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
        fitting = (
            i for i, rule in enumerate(rules, 1) if rule_matches(rule, name, parameter, norms)
        )
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
