"""YAML as OmegaConf reads and writes it, by libyaml, which takes a tenth of the time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# not every build of PyYAML has libyaml
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CDumper", yaml.Dumper)


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


class YamlDumper(_DUMPER):
    """Dumps what `YamlLoader` loads as the same: a text that would be read as a number is quoted.

    >>> print(yaml.dump({"lr": 1e-3, "id": "1e3", "since": "2026-01-31"}, Dumper=YamlDumper))
    id: '1e3'
    lr: 0.001
    since: '2026-01-31'
    <BLANKLINE>
    """


def format_yaml(cfg: DictConfig) -> str:
    """Write a configuration as `OmegaConf.to_yaml` does, its interpolations resolved.

    Args:
        cfg: the configuration.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    options = {"allow_unicode": True, "default_flow_style": False, "sort_keys": False}
    text: str = yaml.dump(plain, Dumper=YamlDumper, **options)
    return text


for _kind in (YamlLoader, YamlDumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+\.?[0-9]*[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in YamlLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 has them for yes and no, though PyYAML reads texts
YamlDumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))
# Python 3.13 writes where it keeps them, pathlib._local, which OmegaConf 2.3 does not read there
for _path in ("Path", "PosixPath", "WindowsPath"):
    for _module in ("pathlib", "pathlib._local"):
        YamlLoader.add_constructor(
            f"tag:yaml.org,2002:python/object/apply:{_module}.{_path}",
            lambda loader, node: Path(*loader.construct_sequence(node)),
        )
