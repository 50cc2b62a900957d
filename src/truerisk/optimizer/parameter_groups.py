"""Parameter groups: the trainable parameters, divided by rules."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from truerisk.core import rng
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.parameter_rules import MATCHERS, find_norm_parameters, split_parameters
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
            optimizer takes one group only, or one value of a number that the rules make several,
            does nothing with its weight decay, or has a state that no checkpoint gives back;
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
    split = split_parameters(trainable, rules, find_norm_parameters(model))
    groups = [
        {"params": list(group.values()), "param_names": list(group), **numbers}
        for numbers, group in split
    ]
    _check_needs(groups, needs_of(factory))
    _refuse_ignored(factory, [numbers for numbers, _ in split if numbers])
    return groups


def _check_names(rules: Iterable[Mapping[str, Any]], factory: Callable[..., Optimizer]) -> None:
    set_by_rules = {key for rule in rules for key in rule if key not in MATCHERS}
    if not set_by_rules:
        return
    names = group_hyperparameters(factory)
    for key in sorted(set_by_rules - names):
        raise ConfigError(
            f"param_groups.rules sets {key!r}, which this optimizer does not have: "
            f"{suggest(key, [*names, *MATCHERS])}; set param_groups=all, or take an optimizer that "
            "has it"
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


Numbers = Mapping[str, Any]
_examined: dict[str, str] = {}
"""What is wrong with optimizers that were examined, by how they are written; mostly nothing."""


def _refuse_ignored(factory: Callable[..., Optimizer], numbers: Sequence[Numbers]) -> None:
    """Refuse what would go wrong without a word: see `_examine`.

    The optimizer takes a few steps beforehand, on weights some of which have no gradient.
    """
    written = f"{factory!r} {list(numbers)!r}"
    if written not in _examined:
        try:
            _examined[written] = _examine(factory, numbers)
        # an optimizer may not take these weights, whatever is wrong with that
        except Exception:
            _examined[written] = ""
    if _examined[written]:
        raise ConfigError(_examined[written])


def _examine(factory: Callable[..., Optimizer], numbers: Sequence[Numbers]) -> str:
    """Say what is wrong with an optimizer, in a sentence; nothing if nothing is.

    Libraries have optimizers with a weight decay that does nothing, groups whose numbers act on
    others as well, and state that no checkpoint gives back.
    """
    needs, target = needs_of(factory), factory
    if needs.curvature or not needs.gradient or not needs.groups:
        return ""
    while isinstance(target, partial):
        target = target.func
    foreign = target.__module__.partition(".")[0] not in ("torch", "truerisk")
    if foreign and (kind := _find_unloadable(_drive(factory, {})[1].state_dict())):
        return (
            f"{target.__name__} keeps a {kind} in its state, and checkpoints hold numbers, tensors "
            "and lists alone: a run that is cut off could not go on; take another optimizer"
        )
    name, defaults = getattr(target, "__name__", str(target)), factory([_weights()[0]]).defaults
    decay = defaults.get("weight_decay", 0)
    if not decay and not numbers:
        return ""
    plain = _walk(factory, {})
    if _same(plain[0], _weights()):
        return ""  # it waits for longer than this takes
    if type(decay) in (int, float) and decay:
        undecayed = _walk(factory, {"weight_decay": 0.0})
        if _same(plain[1], undecayed[1]):
            return (
                f"optimizer.weight_decay is {decay}, and {name} with these numbers does nothing "
                "with it: change optimizer.weight_decouple, or set optimizer.weight_decay=0 (and "
                "regularizer=l2)"
            )
    for rule in numbers:
        for key, value in rule.items():
            if value == defaults.get(key):
                continue
            changed = _walk(factory, {key: value})
            # statistics of all weights may couple them, but not so that both come to the same
            spread = _walk(factory, {key: value}, {key: value})
            if not _same(plain[0], changed[0]) and _same(changed[0], spread[0]):
                return (
                    f"param_groups.rules set {key!r} for some of the weights, and {name} lets it "
                    f"act on all of them: set optimizer.{key} instead"
                )
            if key in ("lr", "weight_decay") and _same(plain[1], changed[1]):
                return (
                    f"param_groups.rules set {key!r}, and {name} with these numbers does nothing "
                    "with it: leave it out"
                )
    return ""


def _weights() -> list[nn.Parameter]:
    sizes = torch.linspace(1.5, 0.1, 12, dtype=torch.float64)
    return [nn.Parameter(sizes[:9].reshape(3, 3).clone()), nn.Parameter(sizes[:3].clone())]


def _find_unloadable(state: Mapping[str, Any]) -> str:
    """Name a class in an optimizer's state that is refused by loading; nothing if there is none."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        return found[1] if found else "class of its own"
    return ""


def _walk(
    factory: Callable[..., Optimizer], numbers: Numbers, first: Numbers | None = None
) -> list[list[Tensor]]:
    """Take some steps with two groups; return their weights."""
    return _drive(factory, numbers, first)[0]


def _drive(
    factory: Callable[..., Optimizer], numbers: Numbers, first: Numbers | None = None
) -> tuple[list[list[Tensor]], Optimizer]:
    """Take some steps with two groups, which may have numbers of their own."""
    groups, needs = [_weights(), _weights()], needs_of(factory)
    optimizer: Any = factory(
        [{"params": groups[0], **(first or {})}, {"params": groups[1], **numbers}]
    )
    if needs.train_eval_modes:
        optimizer.train()
    every = [p for group in groups for p in group]
    with rng.fork_seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # RAdam's first five steps are none
        for _ in range(8):
            slopes = [torch.randn_like(p) for p in every]
            for slope in slopes:
                slope.view(-1)[:2] = 0

            @torch.enable_grad()
            def look(slopes: Sequence[Tensor] = slopes) -> Tensor:
                optimizer.zero_grad()
                pairs = zip(slopes, every, strict=True)
                # bent as well, for those that differentiate it again
                bent = [(c * p + c.square() * p.square()).sum() for c, p in pairs]
                value = torch.stack(bent).sum() + 10
                value.backward(create_graph=needs.create_graph)
                return value

            if needs.closure:
                optimizer.step(look)
            else:
                look()
                optimizer.step()
    return [[p.detach() for p in group] for group in groups], optimizer


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
