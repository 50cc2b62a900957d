"""Composing many cells that share most of their configuration."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from truerisk.config.compose import (
    MISTAKES,
    ConfigLoader,
    Defaults,
    decode_environment,
    drop_hydra,
    resolve_config,
)
from truerisk.config.mistakes import explain_error
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError

REFERENCE = re.compile(r"\$\{([a-zA-Z_]\w*(?:\.\w+)*)\}")
"""A value that is that of one other key, named from the top."""
FEWEST = 16
"""Choices of options, a tenth of a second each, that are worth a process of their own."""


class ComposedCell(NamedTuple):
    """A cell's plain, resolved configuration, and Hydra's own node as in `SharedConfig`."""

    config: dict[str, Any]
    hydra: bytes


class SharedConfig(NamedTuple):
    """What cells share that chose the same options.

    Attributes:
        raw: as Hydra composes it, as plain containers, without Hydra's own node.
        resolved: the same with what it refers to (``${…}``) in place; None where a value is missing
            (``???``), or refers to more than one other key.
        referred: the keys that values refer to, and those of these values.
        hydra: a configuration of Hydra's own node alone, pickled: each job has a copy of it.
        defaults: the options, for messages.
    """

    raw: dict[str, Any]
    resolved: dict[str, Any] | None
    referred: tuple[str, ...]
    hydra: bytes
    defaults: Defaults | None

    def is_referred_to(self, key: str) -> bool:
        """Tell whether another value may follow from what is set at a key, or is replaced by it."""
        return any(f"{key}.".startswith(f"{r}.") or r.startswith(f"{key}.") for r in self.referred)


class ParsedOverride(NamedTuple):
    """An override, the first key of its path, and whether it sets a value or chooses an option."""

    override: Override
    first_key: str
    sets_value: bool


class CellComposer:
    """Composes what Hydra composes, in a hundredth of the time.

    Hydra reads the YAML of the chosen options, then sets the values that the overrides name. Cells
    of a sweep mostly differ in values, so the first half is done once for each choice of options.

    Args:
        loader: reads the options.
        name: of the primary config.
        hydra: overrides of Hydra's own, which all cells have.
        known: what was composed of choices of options before, which is added to.

    Raises:
        ConfigError: (when called) the overrides cannot be composed.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        name: str = PRIMARY,
        hydra: Sequence[str] = (),
        known: dict[tuple[str, ...], SharedConfig] | None = None,
    ) -> None:
        self.loader, self.name, self.hydra = loader, name, list(hydra)
        self._parser = OverridesParser.create()
        # asking the repository looks at the disk, once for every override of every cell
        self._is_group = cache(loader.repository.group_exists)
        self._parsed: dict[str, ParsedOverride] = {}
        self._shared = {} if known is None else known

    def __call__(self, overrides: Sequence[str]) -> ComposedCell:
        """Compose one cell."""
        options, values = self._part(overrides)
        shared = self._compose_shared(options)
        config = shared.resolved
        for override in values:
            if config is not None:
                config = _replace_value(config, override)
        if not config or any(shared.is_referred_to(o.key_or_group) for o in values):
            config = self._apply_with_hydra(shared, values)
        return ComposedCell(config, shared.hydra)

    def compose_ahead(self, points: Sequence[Sequence[str]]) -> None:
        """Compose what cells share in as many processes as there are cores, where that is much.

        What cannot be composed is left for its cell, which tells why.

        Args:
            points: the overrides of each cell.
        """
        if len(points) < 2 * FEWEST:
            return
        choices: dict[tuple[str, ...], None] = {}
        for overrides in points:
            with suppress(ConfigError):
                choices[self._part(overrides)[0]] = None
        left = [options for options in choices if options not in self._shared]
        if len(left) < 2 * FEWEST or threading.active_count() > 1:  # a fork keeps one thread
            return
        from truerisk.core.threads import count_cores  # torch comes with it

        processes = min(count_cores(), len(left) // FEWEST)
        if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
            return
        with multiprocessing.get_context("fork").Pool(processes, _take_composer, [self]) as pool:
            for options, shared in zip(left, pool.imap(_try_composing, left), strict=True):
                if shared is not None:
                    self._shared[options] = shared

    def _part(self, overrides: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
        """Part overrides into those that choose options, as texts, and those that set values."""
        parsed = [self._parse(text) for text in overrides]
        # a key that is added or deleted changes what may be set below it, so all of that is
        # left to Hydra, in the order it was given
        reshaped = {p.first_key for p in parsed if p.override.type != OverrideType.CHANGE}
        values = [p.override for p in parsed if p.sets_value and p.first_key not in reshaped]
        others = [p.override for p in parsed if not p.sets_value or p.first_key in reshaped]
        return tuple(str(override.input_line) for override in others), values

    def _parse(self, text: str) -> ParsedOverride:
        if text not in self._parsed:
            try:
                override = self._parser.parse_overrides([text])[0]
            except MISTAKES as error:
                raise explain_error(error, self.loader.where) from error
            first_key = re.split(r"[.\[@]", override.key_or_group)[0]
            self._parsed[text] = ParsedOverride(override, first_key, self._sets_value(override))
        return self._parsed[text]

    def _sets_value(self, override: Override) -> bool:
        """Tell an override of a value from a choice of options, or one of Hydra's own."""
        key = override.key_or_group
        group = override.package is not None or self._is_group(key)
        return not (group or key == "hydra" or override.is_hydra_override())

    def _compose_shared(self, options: tuple[str, ...]) -> SharedConfig:
        if options not in self._shared:
            overrides = [*self.hydra, *options]
            cfg = self.loader.load_configuration(self.name, overrides, RunMode.RUN)
            own = drop_hydra(cfg)
            raw: Any = OmegaConf.to_container(own)
            references = list(_list_references(raw, ""))
            resolved = None
            if all(target for _, target in references):
                resolved = resolve_config(own)
            referred = tuple(key for pair in references for key in pair)
            with read_write(cfg.hydra):  # a job asks for no points, and Hydra copies all it has
                cfg.hydra.sweeper = {"_target_": cfg.hydra.sweeper._target_}
            hydra = pickle.dumps(OmegaConf.masked_copy(cfg, ["hydra"]))
            shared = SharedConfig(raw, resolved, referred, hydra, self.loader.defaults)
            self._shared[options] = shared
        return self._shared[options]

    def _apply_with_hydra(self, shared: SharedConfig, values: Sequence[Override]) -> dict[str, Any]:
        """Set values that are no single numbers, refer to others or are wrong, as Hydra does it."""
        return resolve_config(self._set_values(shared, values))

    def _set_values(self, shared: SharedConfig, values: Sequence[Override]) -> DictConfig:
        cfg = DictConfig(shared.raw)
        OmegaConf.set_struct(cfg, True)
        try:
            self.loader.apply_overrides(values, cfg)
        except MISTAKES as error:
            raise self.loader.explain(error, values, shared.defaults) from error
        return decode_environment(cfg, lambda: shared.raw)

    def compose_unresolved(self, overrides: Sequence[str]) -> DictConfig:
        """Compose one configuration in which values still refer to others (``${…}``)."""
        options, values = self._part(overrides)
        return self._set_values(self._compose_shared(options), values)


KNOWN: dict[Any, dict[tuple[str, ...], SharedConfig]] = {}
"""What `compose_known` has composed, by the state of the files."""
MOST_KNOWN = 128
"""Choices of options that are kept, each some hundred kilobytes."""


def compose_known(loader: ConfigLoader, overrides: Sequence[str]) -> DictConfig | None:
    """Compose a configuration in a tenth of the time, where this process has had its options.

    Args:
        loader: of the package's own options.
        overrides: with short forms written out.

    Returns:
        The configuration, without Hydra's own node; None where Hydra is to do it: something is
        wrong, which it tells, or follows from what else is set.
    """
    files = sorted(loader.where[0].rglob("*.yaml"))
    state = tuple((file, file.stat().st_mtime_ns) for file in files)
    if state not in KNOWN:
        KNOWN.clear()
    known = KNOWN.setdefault(state, {})
    try:
        parsed = loader.read_overrides(overrides)
        if any("${" in text for text in overrides) or any(o.is_sweep_override() for o in parsed):
            return None
        loader.refuse_senseless(parsed)
        cfg = CellComposer(loader, known=known).compose_unresolved(overrides)
        loader.refuse_files(parsed)
    except (ConfigError, *MISTAKES):
        return None
    for options in list(known)[:-MOST_KNOWN]:
        del known[options]
    return cfg


_composer: CellComposer
"""In a process that composes for another: the other's."""


def _take_composer(composer: CellComposer) -> None:
    global _composer
    _composer = composer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other ends this one


def _try_composing(options: tuple[str, ...]) -> SharedConfig | None:
    try:
        return _composer._compose_shared(options)
    except ConfigError:
        return None


def _list_references(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the keys whose values stand elsewhere, each with the key of that value.

    The second is empty where it is no single other key, or where the value is missing.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _list_references(value, f"{key}.{name}".removeprefix("."))
    elif isinstance(node, list | tuple):
        for value in node:  # an override of an entry gives the whole list anew
            yield from _list_references(value, key)
    elif isinstance(node, str) and (node == "???" or "${" in node):
        reference = REFERENCE.fullmatch(node)
        yield key, reference[1] if reference else ""


def _replace_value(config: dict[str, Any], override: Override) -> dict[str, Any] | None:
    """Copy a configuration with one single value replaced; None where more than that is asked."""
    value, path = override.value(), override.key_or_group.split(".")
    if isinstance(value, Mapping | list) or any(_list_references(value, "")):
        return None
    # only the mappings on the way are copied; the others are shared with all cells
    copy = node = dict(config)
    for part in path[:-1]:
        if not isinstance(node.get(part), dict):
            return None
        node[part] = node = dict(node[part])
    if path[-1] not in node or isinstance(node[path[-1]], dict):
        return None
    node[path[-1]] = value
    return copy
