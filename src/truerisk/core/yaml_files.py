"""YAML as OmegaConf reads it, by libyaml's parser, which takes a twentieth of the time."""

from __future__ import annotations

import re
from typing import Any

import yaml

# not every build of PyYAML has libyaml
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_SAFE_LOADER):
    """Loads what OmegaConf loads: ``1e-3`` is a number, and a date is a text.

    >>> yaml.load("{lr: 1e-3, steps: 10, since: 2026-01-31}", YamlLoader)
    {'lr': 0.001, 'steps': 10, 'since': '2026-01-31'}
    """


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in YamlLoader.yaml_implicit_resolvers.items()
}
