"""YAML as OmegaConf reads it, by libyaml's parser, which takes a twentieth of the time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

# not every build of PyYAML has libyaml
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_SAFE_LOADER):
    """Loads what OmegaConf loads: ``1e-3`` is a number, and a date is a text.

    >>> yaml.load("{lr: 1e-3, steps: 10, since: 2026-01-31}", YamlLoader)
    {'lr': 0.001, 'steps': 10, 'since': '2026-01-31'}
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping, each of whose keys stands once."""
        before = set()
        for key, _ in node.value:
            if key.value in before:
                told = f"the key {key.value} stands twice"
                raise ConstructorError(problem=told, problem_mark=key.start_mark)
            before.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+\.?[0-9]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in YamlLoader.yaml_implicit_resolvers.items()
}
for _kind in ("Path", "PosixPath", "WindowsPath"):
    YamlLoader.add_constructor(
        f"tag:yaml.org,2002:python/object/apply:pathlib.{_kind}",
        lambda loader, node: Path(*loader.construct_sequence(node)),
    )
