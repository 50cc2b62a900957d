"""Composing many cells that share most of their configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truerisk.config.compose import MISTAKES, ConfigLoader, resolve_config
from truerisk.config.mistakes import explain_error
from truerisk.config.parts import PRIMARY


class ComposedCell(NamedTuple):
    """A cell's plain, resolved configuration, and Hydra's own node."""

    config: dict[str, Any]
    hydra: DictConfig


class SharedConfig(NamedTuple):
    """What cells share that chose the same options.

    ``plain`` is None where values refer to others (``${…}``) or are missing (``???``).
    """

    cfg: DictConfig
    plain: dict[str, Any] | None


class CellComposer:
    """Composes what Hydra composes, in a hundredth of the time.

    Hydra reads the YAML of the chosen options, then sets the values that the overrides name. Cells
    of a sweep mostly differ in values, so the first half is done once for each choice of options.

    Raises:
        ConfigError: (when called) the overrides cannot be composed.
    """

    def __init__(
        self, loader: ConfigLoader, name: str = PRIMARY, hydra: Sequence[str] = ()
    ) -> None:
        self.loader, self.name, self.hydra = loader, name, list(hydra)
        self._parser = OverridesParser.create()
        self._groups = cache(loader.repository.group_exists)
        self._overrides: dict[str, Override] = {}
        self._bases: dict[tuple[str, ...], SharedConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> ComposedCell:
        """Compose one cell."""
        parsed = [self._parsed(text) for text in overrides]
        reshaped = {_head(o) for o in parsed if o.type != OverrideType.CHANGE}
        values = [o for o in parsed if self._is_value(o) and _head(o) not in reshaped]
        options = tuple(str(o.input_line) for o in parsed if o not in values)
        base = self._base(options)
        plain = base.plain
        for override in values:
            plain = _with(plain, override) if plain is not None else None
        return ComposedCell(plain or self._slowly(base, values, overrides), base.cfg.hydra)

    def _parsed(self, text: str) -> Override:
        if text not in self._overrides:
            try:
                self._overrides[text] = self._parser.parse_overrides([text])[0]
            except MISTAKES as error:
                raise explain_error(error, [text], self.loader.where) from error
        return self._overrides[text]

    def _is_value(self, override: Override) -> bool:
        key = override.key_or_group
        group = override.package is not None or self._groups(key)
        return not (group or key == "hydra" or override.is_hydra_override())

    def _base(self, options: tuple[str, ...]) -> SharedConfig:
        if options not in self._bases:
            asked = [*self.hydra, *options]
            cfg = self.loader.load_configuration(self.name, asked, RunMode.RUN)
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            plain = OmegaConf.to_container(own)
            assert isinstance(plain, dict)
            self._bases[options] = SharedConfig(cfg, plain if _settled(plain) else None)  # type: ignore[arg-type]
        return self._bases[options]

    def _slowly(
        self, base: SharedConfig, values: Sequence[Override], overrides: Sequence[str]
    ) -> dict[str, Any]:
        """As Hydra does it: for values that are no single numbers, refer to others or are wrong."""
        own = OmegaConf.masked_copy(base.cfg, [str(key) for key in base.cfg if key != "hydra"])
        cfg = DictConfig(OmegaConf.to_container(own))
        OmegaConf.set_struct(cfg, True)
        try:
            self.loader._apply_overrides_to_config(list(values), cfg)
        except MISTAKES as error:
            raise explain_error(error, list(overrides), self.loader.where) from error
        return resolve_config(cfg)


def _head(override: Override) -> str:
    return re.split(r"[.\[@]", override.key_or_group)[0]


def _settled(node: Any) -> bool:
    """Whether nothing in plain containers is missing or refers to anything."""
    if isinstance(node, Mapping | list):
        return all(map(_settled, node.values() if isinstance(node, Mapping) else node))
    return not isinstance(node, str) or (node != "???" and "${" not in node)


def _with(plain: dict[str, Any], override: Override) -> dict[str, Any] | None:
    """A copy with one single value replaced; None where that is not all that is asked."""
    value, path = override.value(), override.key_or_group.split(".")
    if isinstance(value, Mapping | list) or not _settled(value):
        return None
    copy = node = dict(plain)
    for part in path[:-1]:
        if not isinstance(node.get(part), dict):
            return None
        node[part] = node = dict(node[part])
    if path[-1] not in node or isinstance(node[path[-1]], dict):
        return None
    node[path[-1]] = value
    return copy
