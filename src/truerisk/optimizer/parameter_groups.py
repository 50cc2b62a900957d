"""Parameter groups: the trainable parameters, divided by rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from truerisk.core.errors import ConfigError, suggest
from truerisk.core.parameter_rules import MATCHERS, split_parameters
from truerisk.optimizer.needs import Needs, needs_of


def group_hyperparameters(factory: Callable[..., Optimizer]) -> frozenset[str]:
    """List the numbers that may differ between an optimizer's parameter groups.

    >>> import torch
    >>> sorted(group_hyperparameters(torch.optim.Rprop) - {"foreach", "capturable"})
    ['differentiable', 'etas', 'lr', 'maximize', 'step_sizes']
    """
    # one that is built knows, whatever its signature; a matrix, as Muon takes no other
    return frozenset(factory([nn.Parameter(Tensor([[0.0]]))]).defaults)


def parameter_groups(
    model: nn.Module,
    rules: Sequence[Mapping[str, Any]],
    factory: Callable[..., Optimizer],
) -> list[dict[str, Any]]:
    """Divide a model's trainable parameters into groups for an optimizer, by ordered rules.

    The first rule that matches a parameter takes it; what none matches forms the first group.
    Parameters with ``requires_grad=False`` are left out. Groups are what ``torch.optim`` expects:
    ``params``, the matching ``param_names``, and the numbers the rule sets.

    Args:
        model: the model to train.
        rules: see ``truerisk.core.parameter_rules.split_parameters``.
        factory: the optimizer's class, or a partial of it: called with parameters only.

    Returns:
        The groups, none of them empty.

    Raises:
        ConfigError: a rule sets a number the optimizer does not have, or matches nothing; the
            optimizer takes one group only, or one value of a number that the rules make several;
            nothing is trainable.

    >>> import torch
    >>> rules = [{"max_ndim": 1, "weight_decay": 0.0}]
    >>> for group in parameter_groups(nn.Linear(2, 1), rules, torch.optim.SGD):
    ...     print(group["param_names"], group.get("weight_decay"))
    ['weight'] None
    ['bias'] 0.0
    """
    _check_names(rules, factory)
    # in the model's order, which decides that of the optimizer's state
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ConfigError("no parameter of the model is trainable: there is nothing to optimize")
    groups = [
        {"params": list(group.values()), "param_names": list(group), **numbers}
        for numbers, group in split_parameters(trainable, rules)
    ]
    _check_needs(groups, needs_of(factory))
    return groups


def _check_names(rules: Iterable[Mapping[str, Any]], factory: Callable[..., Optimizer]) -> None:
    set_by_rules = {key for rule in rules for key in rule if key not in MATCHERS}
    if not set_by_rules:
        return
    names = group_hyperparameters(factory)
    for key in sorted(set_by_rules - names):
        raise ConfigError(
            f"param_groups.rules sets {key!r}, which this optimizer does not have: "
            f"{suggest(key, [*names, *MATCHERS])}"
        )


def _check_needs(groups: Sequence[Mapping[str, Any]], needs: Needs) -> None:
    if len(groups) > 1 and not needs.groups:
        raise ConfigError(
            f"param_groups.rules make {len(groups)} groups, but this optimizer takes only one: "
            "set param_groups=all"
        )
    for key in needs.common_hyperparameters:
        if any(key in group for group in groups):
            raise ConfigError(
                f"param_groups.rules set {key!r}, which this optimizer keeps in common for all "
                f"parameters: set optimizer.{key} instead"
            )
