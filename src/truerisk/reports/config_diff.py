"""The keys in which resolved configurations differ, and the short labels made of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from sys import intern
from typing import Any

from truerisk.sweeps import sweep_cell
from truerisk.task import config_has_samples

IGNORED_KEYS = (
    "seed", "data.fold", "diagnostics", "metric", "compile",
    "choices.logger", "choices.diagnostics",
    *sweep_cell.IGNORED,
    *(f"data.{key}" for key in sweep_cell.IGNORED_IN_DATA),
    *(f"data.source.{key}" for key in sweep_cell.IGNORED_IN_DATA),
)  # fmt: skip
"""Keys that make no recipe: seeds, and what only observes, stores or speeds up a run."""

OF_THE_RECIPE = (
    "data.batch_size",
    "data.num_train",
    "data.sampler",
    "data.standardize_target",
    "loss.weight",
    "loss.label_smoothing",
    "model.start",
)
"""Keys below those of a problem that change nothing about what is measured."""
PROBLEM_KEYS = ("data", "loss", "choices.data", "choices.loss")
"""Keys that define the learning problem: risks are comparable only where these agree."""

FUNCTION_KEYS = ("model", "choices.model")
"""Keys that define it too where there is no data: the model is the function to minimise."""

REGULARIZERS = "choices.regularizer"
"""A key added to flat configurations: the names of the regularizers, joined by ``+``."""

FlatConfig = Mapping[str, Any]
"""Values of a configuration by dotted key."""


def is_under(key: str, heads: Iterable[str]) -> bool:
    """Tell whether a dotted key is one of ``heads`` or below one.

    Args:
        key: a dotted key.
        heads: dotted keys of nodes or leaves.

    Returns:
        Whether it is.

    >>> is_under("seed.base", ["seed"]), is_under("seeds", ["seed"])
    (True, False)
    """
    return any(key == head or key.startswith(f"{head}.") for head in heads)


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Map dotted keys to leaves, without the keys that do not change results.

    >>> flatten_config({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "seed": {"base": 1}})
    {'optimizer.lr': 0.1, 'optimizer.betas': '[0.9,0.99]', 'choices.regularizer': 'none'}
    """
    leaves = dict(_iterate_leaves(sweep_cell.drop_neutral(config), ""))
    flat = {key: value for key, value in leaves.items() if not _is_ignored(key)}
    # `choices` names one option a group, and of regularizers any number is chosen
    return {**flat, REGULARIZERS: "+".join(sorted(config.get("regularizer") or {})) or "none"}


@cache  # the keys of one run are those of thousands
def _is_ignored(key: str) -> bool:
    return is_under(key, IGNORED_KEYS)


def _iterate_leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = intern(f"{above}{name}")  # one text for all of thousands of runs
        if isinstance(value, Mapping):
            yield from _iterate_leaves(value, f"{key}.")
        elif isinstance(value, list):
            yield key, str(value).replace(" ", "")  # as text it can be hashed and compared
        else:
            yield key, value


def defines_problem(key: str, flat: FlatConfig) -> bool:
    """Tell whether a key defines the learning problem (data, loss), rather than the recipe.

    Args:
        key: a dotted key.
        flat: the configuration it stands in.

    Returns:
        Whether it does. How the data is batched, how many samples are trained on (the others are
        the same), how targets are scaled for the loss and where a test function is started from
        belong to the recipe.
    """
    heads: tuple[str, ...] = PROBLEM_KEYS
    if not config_has_samples(str(flat.get("data._target_", ""))):
        heads += FUNCTION_KEYS
    return is_under(key, heads) and key not in OF_THE_RECIPE


def key_context(key: str, flat: FlatConfig) -> tuple[Any, ...]:
    """List what gives a key its meaning: the option of its group, and the classes it configures.

    A learning rate of 0.1 with SGD and of 0.001 with Adam is one difference, the optimizer, where
    each is that option's default.

    Args:
        key: a dotted key.
        flat: the configuration it stands in.

    Returns:
        Values that are equal where two values of the key can be compared.
    """
    parts = key.split(".")
    nodes = [".".join(parts[:i]) for i in range(1, len(parts))]
    classes = [flat.get(f"{node}._target_") for node in nodes if f"{node}._target_" != key]
    option = None
    # the set of regularizers is no option: one regularizer's number means the same beside others
    if parts[0] != "regularizer":
        option = flat.get(f"choices.{parts[0]}")
    return (option, *classes)


def find_varied_keys(flats: Sequence[FlatConfig]) -> list[str]:
    """Find the keys that take several values within one context, choices of groups first.

    >>> sgd, adam = ({"choices.optimizer": o, "optimizer.lr": lr}
    ...              for o, lr in (("sgd", 0.1), ("adam", 0.001)))
    >>> find_varied_keys([sgd, adam])
    ['choices.optimizer']
    >>> find_varied_keys([sgd, adam, {**sgd, "optimizer.lr": 0.2}])
    ['choices.optimizer', 'optimizer.lr']
    """
    values: dict[str, set[str]] = defaultdict(set)
    for flat in flats:
        for key, value in flat.items():
            values[key].add(repr(value))
    # most keys are alike everywhere, and contexts take long to compare
    several = [key for key, distinct in values.items() if len(distinct) > 1]
    varied = [key for key in several if _varies_in_context(key, flats)]
    return sorted(varied, key=lambda key: not key.startswith("choices."))


def _varies_in_context(key: str, flats: Sequence[FlatConfig]) -> bool:
    first_value: dict[tuple[Any, ...], str] = {}
    for flat in flats:
        if key in flat:
            value = repr(flat[key])
            if first_value.setdefault(key_context(key, flat), value) != value:
                return True
    return False


def select_numeric_keys(keys: Iterable[str], flats: Sequence[FlatConfig]) -> list[str]:
    """Select the keys all of whose values are numbers, and at least two.

    Args:
        keys: dotted keys.
        flats: the configurations.

    Returns:
        Some of the keys, in their order; switches (true, false) are no numbers.
    """
    numeric = []
    for key in keys:
        values = {flat[key] for flat in flats if key in flat}
        if len(values) > 1 and all(map(_is_number, values)):
            numeric.append(key)
    return numeric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shorten_keys(keys: Sequence[str]) -> dict[str, str]:
    """Cut dotted keys to the shortest ends that tell them apart.

    >>> shorten_keys(["optimizer.lr", "optimizer.base.lr", "choices.data", "model.width"])
    {'optimizer.lr': 'optimizer.lr', 'optimizer.base.lr': 'base.lr', 'choices.data': 'data', \
'model.width': 'width'}
    """
    names = {key: key.removeprefix("choices.").removesuffix("._target_") for key in keys}
    ends = Counter(end for name in names.values() for end in _name_ends(name))
    # a name that ends another one has no end of its own, and stays whole
    return {
        key: next((end for end in _name_ends(name) if ends[end] == 1), name)
        for key, name in names.items()
    }


def _name_ends(name: str) -> list[str]:
    """List ``c``, ``b.c`` and ``a.b.c`` for ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]


def format_value(value: Any) -> str:
    """Write a value as labels show it.

    >>> format_value(0.0063095734), format_value(None), format_value("truerisk.model.MLP")
    ('0.00631', 'null', 'MLP')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if text.isascii() and text.replace(".", "_").isidentifier():
        return text.rpartition(".")[2]  # a class, without its module
    return text


def format_label(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Write a label: choices by their option alone, other keys as ``name=value``.

    Args:
        values: values by dotted key.
        names: the keys' short names, as `shorten_keys` makes them.

    Returns:
        The label; empty where there are no values.

    >>> values = {"choices.optimizer": "sgd", "optimizer.lr": 0.1}
    >>> format_label(values, shorten_keys(list(values)))
    'sgd lr=0.1'
    >>> format_label({"data.source.path": "wages.csv"}, {"data.source.path": "path"})
    'path=wages.csv'
    """
    words = []
    for key, value in values.items():
        if key.startswith("choices.") or key.endswith("._target_"):
            words.append(format_value(value))
        elif key.endswith(".path"):  # of a file: what comes after its dot says little
            words.append(f"{names[key]}={value}")
        else:
            words.append(f"{names[key]}={format_value(value)}")
    return " ".join(words)
