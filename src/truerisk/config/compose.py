"""Composing a configuration with Hydra's own loader, and errors that say what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from truerisk.config.mistakes import explain_error, explain_unresolved, nearest_in
from truerisk.config.parts import PRIMARY, conf_dir, existing_folder, option_folders
from truerisk.core.errors import ConfigError, UserError
from truerisk.core.seeds import Streams

VERSION_BASE = "1.3"
LISTS = ("regularizer", "diagnostics", "logger")
"""Groups of which any number of options is chosen; there may be none yet."""
STATE = (GlobalHydra, HydraConfig, JobRuntime, version.VersionBase)
MISTAKES = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)


class ConfigLoader(ConfigLoaderImpl):
    """Hydra's loader over the package's options and the user's.

    It hides options whose name starts with ``_``, gives a list group without choices an empty
    node, reads ``seed: 3`` as ``seed: {base: 3}``, and raises `ConfigError` for every mistake in
    the overrides or the YAML. Everything Hydra composes in a job or a sweep passes through it.
    """

    def __init__(self, config_dir: str | None = None, config_path: str | None = None) -> None:
        self.where = option_folders(config_dir)
        path = create_config_search_path(config_path or str(conf_dir()))
        if config_dir is not None:
            anchor = SearchPathQuery(provider="schema", path=None)
            path.prepend("command-line", f"file://{self.where[-1]}", anchor)
        super().__init__(path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose. For a sweep this gives what its jobs share, with the first of swept options."""
        options = (run_mode, from_shell, validate_sweep_overrides)
        try:
            if run_mode != RunMode.MULTIRUN:
                return _with_choices(super().load_configuration(config_name, overrides, *options))
            parsed = self.parsed(overrides)
            firsts = [self._first(override) for override in parsed]
            cfg = super().load_configuration(config_name, firsts, *options)
        except MISTAKES as error:
            raise explain_error(error, overrides, self.where) from error
        cfg.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
        return cfg

    def parsed(self, overrides: Sequence[str]) -> list[Override]:
        """The overrides, read by Hydra's grammar."""
        try:
            return list(OverridesParser.create().parse_overrides(list(overrides)))
        except MISTAKES as error:
            raise explain_error(error, overrides, self.where) from error

    def _first(self, override: Override) -> str:
        """The override with the first option of a swept group.

        Hydra itself leaves a swept group at its default here, and so refuses
        ``-m optimizer=momentum,nesterov optimizer.momentum=0.5``.
        """
        if override.is_discrete_sweep() and self.repository.group_exists(override.key_or_group):
            return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
        return str(override.input_line)

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The visible options of a group, for help and completion."""
        found = super().get_group_options(group_name, results_filter, config_name, overrides)
        return [name for name in found if not name.startswith(("_", "."))]

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        cfg = super()._compose_config_from_defaults_list(defaults, repo)
        if isinstance(cfg.get("seed"), int):
            cfg.seed = {"base": cfg.seed, **dict.fromkeys(Streams._fields)}
        for group in (*LISTS, *(folder.name for folder in self.where[0].glob("*/"))):
            if group not in ("experiment", "hydra"):
                cfg.setdefault(group, {})
        return cfg


def _with_choices(cfg: DictConfig) -> DictConfig:
    """Keep the names of the options beside what they hold: ``momentum`` is more than an SGD."""
    chosen = {k: v for k, v in cfg.hydra.runtime.choices.items() if k.isidentifier()}
    with open_dict(cfg):
        cfg.choices = {k: v for k, v in chosen.items() if "_target_" in (cfg.get(k) or {})}
    return cfg


@contextmanager
def hydra_session() -> Iterator[None]:
    """Hydra's global state set up for us, then back to what a surrounding program had."""
    instances: dict[type, Any] = Singleton._instances
    held: dict[type, Any] = {kind: instances.pop(kind) for kind in STATE if kind in instances}
    version.setbase(VERSION_BASE)
    setup_globals()
    try:
        yield
    finally:
        for kind in STATE:
            instances.pop(kind, None)
        instances.update(held)


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, without Hydra's own node.

    Raises:
        ConfigError: a value is missing (``???``) or an interpolation leads nowhere.
    """
    plain = _job(cfg)
    try:
        container = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise explain_unresolved(error) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _job(cfg: DictConfig) -> DictConfig:
    """The configuration without Hydra's own node."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> DictConfig:
    """Compose the configuration that ``truerisk train OVERRIDES`` would run.

    Works in a notebook and inside another Hydra program, whose state it leaves alone.

    Raises:
        ConfigError: an override, or a YAML file it leads to, is wrong.
    """
    with hydra_session():
        loader = ConfigLoader(config_dir)
        cfg = loader.load_configuration(
            PRIMARY, expand_short_forms(overrides), RunMode.RUN, from_shell=False
        )
    job = _job(cfg)
    OmegaConf.set_struct(job, True)
    resolve_config(job)
    return job


def override_config(
    cfg: DictConfig, overrides: Sequence[str], config_dir: str | None = None
) -> DictConfig:
    """A finished run's configuration with some of it replaced.

    ``data.label_noise=0`` changes the run's own data; ``data=arrays data.source.path=new.npz`` puts
    another option in its place.

    Raises:
        ConfigError: an override is wrong.
    """
    changed = OmegaConf.create(resolve_config(cfg))
    with hydra_session():
        loader = ConfigLoader(config_dir)
        parsed = loader.parsed(overrides)
        chosen = {o.key_or_group for o in parsed if loader.repository.group_exists(o.key_or_group)}
    for group in chosen:
        own = [str(o.input_line) for o in parsed if o.key_or_group.partition(".")[0] == group]
        changed[group] = compose(own, config_dir)[group]
    OmegaConf.set_struct(changed, True)
    for change in (o for o in parsed if o.key_or_group.partition(".")[0] not in chosen):
        try:
            ConfigLoaderImpl._apply_overrides_to_config([change], changed)
        except MISTAKES as error:
            path = change.key_or_group.split(".")
            hint = nearest_in(OmegaConf.to_container(changed), path)
            raise ConfigError(f"{change.input_line}: {hint}; see the run's config.yaml") from error
    return changed


def expand_short_forms(args: Sequence[str]) -> list[str]:
    """Rewrite ``seed=3`` (also ``seed=1,2`` and ``seed=range(20)``) as ``seed.base=3``.

    >>> expand_short_forms(["seed=range(20)", "optimizer=sgd"])
    ['seed.base=range(20)', 'optimizer=sgd']
    """
    return [re.sub(r"^(\+{0,2})seed=(?!\s*\{)", "seed.base=", arg) for arg in args]


def quote_override(text: str) -> str:
    """The text as a string in Hydra's override grammar.

    >>> print(quoted("lr=0.1, it's"))
    "lr=0.1, it's"
    """
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


def expand_resume(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """The overrides; with ``resume=FOLDER`` among them, those that let Hydra work in that folder.

    Raises:
        UserError: the folder is missing, or something else is asked for at once.
    """
    named = [m[1] for o in overrides if (m := re.fullmatch(r"\+{0,2}resume=(.*)", o, re.S))]
    value = named[-1].strip("'\"") if named else "null"
    if value in ("null", ""):
        return list(overrides)
    hydra = [o for o in overrides if o.lstrip("+~").startswith("hydra")]
    others = [o for o in overrides if o not in hydra and "resume" not in o.partition("=")[0]]
    if others or multirun:
        what = others[0] if others else "--multirun"
        raise UserError(f"resume goes on with a run as it was configured; leave out {what}")
    folder = existing_folder(value, "resume")
    return [
        *hydra,
        *(f"{key}={quote_override(str(folder))}" for key in ("resume", "hydra.run.dir")),
    ]
