"""What recipes are, and how they are told apart: the keys in which resolved configs differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from truerisk.sweeps import sweep_cell
from truerisk.task import config_has_samples

IGNORED = (
    "seed", "diagnostics", "compile", "choices.logger", "choices.diagnostics", *sweep_cell.IGNORED,
    *(f"data.{key}" for key in sweep_cell.IGNORED_IN_DATA),
    *(f"data.source.{key}" for key in sweep_cell.IGNORED_IN_DATA),
)  # fmt: skip
"""Keys that do not change what a recipe is: its seeds, and what only watches, stores or hurries."""

PROBLEM = ("data", "loss", "choices.data", "choices.loss")
"""Keys of what is learned and how a loss is counted: risks are compared within these only."""

FUNCTION = ("model", "choices.model")
"""Without data the problem is the function, which is the model."""

SET = "choices.regularizer"
"""A key of our own: the regularizers there are, of which any number is chosen."""

Flat = Mapping[str, Any]


def under(key: str, heads: Iterable[str]) -> bool:
    """Whether a key is one of ``heads`` or below it.

    >>> under("seed.base", ["seed"]), under("seeds", ["seed"])
    (True, False)
    """
    return any(key == head or key.startswith(f"{head}.") for head in heads)


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config's leaves by dotted key, without what does not change results.

    >>> flatten({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "seed": {"base": 1}})
    {'optimizer.lr': 0.1, 'optimizer.betas': '[0.9,0.99]', 'choices.regularizer': 'none'}
    """
    flat = {key: value for key, value in _leaves(config, "") if not under(key, IGNORED)}
    return {**flat, SET: "+".join(sorted(config.get("regularizer") or {})) or "none"}


def _leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        elif isinstance(value, list):
            yield key, str(value).replace(" ", "")
        else:
            yield key, value


def of_problem(key: str, flat: Flat) -> bool:
    """Whether a key says what is learned, rather than how."""
    heads: tuple[str, ...] = PROBLEM
    if not config_has_samples(str(flat.get("data._target_", ""))):
        heads = (*PROBLEM, *FUNCTION)
    return under(key, heads) and key not in ("data.batch_size", "model.start")


def surroundings(key: str, flat: Flat) -> tuple[Any, ...]:
    """What a key belongs to: the option chosen for its group, and the classes it is an argument of.

    A value that came with another option is no difference of its own.
    """
    parts = key.split(".")
    above = [".".join(parts[:i]) for i in range(1, len(parts))]
    classes = [flat.get(f"{node}._target_") for node in above if f"{node}._target_" != key]
    return (flat.get(f"choices.{parts[0]}") if parts[0] != "regularizer" else None, *classes)


def varied(flats: Sequence[Flat]) -> list[str]:
    """The keys that take several values in the same surroundings, in the order of the configs.

    >>> sgd, adam = ({"choices.optimizer": o, "optimizer.lr": lr}
    ...              for o, lr in (("sgd", 0.1), ("adam", 0.001)))
    >>> varied([sgd, adam])
    ['choices.optimizer']
    >>> varied([sgd, adam, {**sgd, "optimizer.lr": 0.2}])
    ['choices.optimizer', 'optimizer.lr']
    """
    values: dict[str, set[str]] = defaultdict(set)
    for flat in flats:
        for key, value in flat.items():
            values[key].add(repr(value))
    several = [key for key, seen in values.items() if len(seen) > 1]
    found = [key for key in several if _varies(key, flats)]
    return sorted(found, key=lambda key: not key.startswith("choices."))


def _varies(key: str, flats: Sequence[Flat]) -> bool:
    seen: dict[tuple[Any, ...], Any] = {}
    having = (flat for flat in flats if key in flat)
    return any(seen.setdefault(surroundings(key, f), repr(f[key])) != repr(f[key]) for f in having)


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not a switch.

    >>> is_number(0.1), is_number(True), is_number("0.1")
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def numeric(keys: Iterable[str], flats: Sequence[Flat]) -> list[str]:
    """The keys whose values are all numbers, and at least two."""
    found = []
    for key in keys:
        values = {flat[key] for flat in flats if key in flat}
        if len(values) > 1 and all(map(is_number, values)):
            found.append(key)
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that tell them apart.

    >>> short_names(["optimizer.lr", "optimizer.base.lr", "choices.data", "model.width"])
    {'optimizer.lr': 'optimizer.lr', 'optimizer.base.lr': 'base.lr', 'choices.data': 'data', \
'model.width': 'width'}
    """
    plain = {key: key.removeprefix("choices.").removesuffix("._target_") for key in keys}
    return {key: _shortest(name, list(plain.values())) for key, name in plain.items()}


def _shortest(name: str, names: Sequence[str]) -> str:
    parts = name.split(".")
    ends = (".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1))
    return next((e for e in ends if sum(f".{n}".endswith(f".{e}") for n in names) == 1), name)


def shown(value: Any) -> str:
    """A value as labels write it.

    >>> shown(0.0063095734), shown(None), shown("truerisk.model.MLP")
    ('0.00631', 'null', 'MLP')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return (
        text.rpartition(".")[2]
        if text.isascii() and text.replace(".", "_").isidentifier()
        else text
    )


def label(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A short name: options by themselves, other keys with theirs.

    >>> values = {"choices.optimizer": "sgd", "optimizer.lr": 0.1}
    >>> label(values, short_names(list(values)))
    'sgd lr=0.1'
    """
    words = []
    for key, value in values.items():
        bare = key.startswith("choices.") or key.endswith("._target_")
        words.append(shown(value) if bare else f"{names[key]}={shown(value)}")
    return " ".join(words)
