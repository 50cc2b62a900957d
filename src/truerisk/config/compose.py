"""Composing a configuration with Hydra's own loader, and errors that say what to change.

The only module that imports `hydra._internal`: a new version of Hydra is adapted to here.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Override,
    OverrideType,
    QuotedString,
    ValueType,
)
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.config_source import ConfigLoadError
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from truerisk.config.mistakes import (
    Composition,
    explain_error,
    explain_unresolved,
    nearest_in,
    read_default_groups,
)
from truerisk.config.parts import (
    PRIMARY,
    SINGLE,
    conf_dir,
    existing_folder,
    find_fault,
    list_groups,
    list_options,
    option_folders,
)
from truerisk.core.errors import ConfigError, UserError, refuse_arguments
from truerisk.core.seeds import Streams

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

__all__ = ["ConfigLoader", "compose", "make_callbacks", "override_config", "resolve_config"]

BASIC_PLUGINS = "hydra._internal.core_plugins.basic_"
"""How the paths of Hydra's basic launcher and sweeper begin, which ours take the place of."""
VERSION_BASE = "1.3"
"""The behaviour asked of Hydra 1.3; later versions have no other, and will not be asked."""
LISTS = ("regularizer", "metric", "diagnostics", "logger")
"""Groups of which any number of options is chosen; there may be none yet."""
TRAINER_KEYS = ("accelerator", "max_epochs", "max_steps", "precision")
ALWAYS = ("data.batch_size", *(f"trainer.{name}" for name in TRAINER_KEYS))
"""Keys of options that every run has."""
NEUTRAL = {"scheduler": "constant", "initializer": "default", "param_groups": "all"}
NEUTRAL["parametrization"] = "standard"
NEUTRAL |= dict.fromkeys(LISTS, "[]")
"""What is chosen of a group that is taken away, as in ``~scheduler``."""
ASKS_BASE = tuple(map(int, hydra.__version__.split(".")[:2])) < (1, 4)
STATE = (GlobalHydra, HydraConfig, JobRuntime, *([version.VersionBase] if ASKS_BASE else []))
"""Hydra's global state."""
WORDS = ("auto", "full")
"""Texts that options have where a number may stand too."""
ENVIRONMENT = re.compile(r"\$\{oc\.env:[^{}]*\}")
Defaults = tuple[Any, Any]
"""Hydra's list of options, and the repository they are read from."""
FILES: dict[tuple[str | int, ...], Any] = {}
"""What files with options say, by who provides them, their folder, name, time and size."""
MISTAKES = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)
"""What Hydra raises for what a user got wrong."""


class ConfigLoader(ConfigLoaderImpl):
    """Hydra's loader over the package's options and the user's.

    It hides options whose name starts with ``_``, gives a list group without choices an empty
    node, reads ``seed: 3`` as ``seed: {base: 3}``, and raises `ConfigError` for every mistake in
    the overrides or the YAML. Everything Hydra composes in a job or a sweep passes through it.

    Args:
        config_dir: the user's options, which come before the package's.
        config_path: in place of the package's options.
    """

    def __init__(self, config_dir: str | None = None, config_path: str | None = None) -> None:
        self.where = option_folders(config_dir)
        self.defaults: Defaults | None = None
        """The options that the last configuration was composed of."""
        path = create_config_search_path(config_path or str(conf_dir()))
        if config_dir is not None:
            anchor = SearchPathQuery(provider="schema", path=None)
            path.prepend("command-line", f"file://{self.where[-1]}", anchor)
        super().__init__(path)
        self.repository = _Options(path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration, Hydra's own node included.

        Args:
            config_name: of the primary config.
            overrides: with short forms written out.
            run_mode: for a multirun this gives what its jobs share, with the first of swept
                options.
            from_shell: whether messages may speak of the command line.
            validate_sweep_overrides: whether several values are refused for a single run.

        Raises:
            ConfigError: an override, or a YAML file it leads to, is wrong.
        """
        options = (run_mode, from_shell, validate_sweep_overrides)
        multirun = run_mode == RunMode.MULTIRUN
        self.defaults = None
        parsed = self.read_overrides(overrides)
        self.refuse_senseless(parsed)
        try:
            if not multirun:
                cfg = super().load_configuration(config_name, overrides, *options)
                self.refuse_files(parsed)
                return decode_environment(_keep_choices(cfg), self._read_default_values)
            # what is swept has no one value: jobs share what the first choice has
            firsts = [self._take_first_option(override) for override in parsed]
            try:
                cfg = super().load_configuration(config_name, firsts, *options)
            except MISTAKES:
                # a value that another of the swept options has is for each cell to set
                below = self.find_conditional(parsed)
                if not below or not all(self.fits_some_option(o, parsed) for o in below):
                    raise
                kept = [self._take_first_option(o) for o in parsed if o not in below]
                cfg = super().load_configuration(config_name, kept, *options)
        except MISTAKES as error:
            if isinstance(error, OverrideParseException):
                parsed = []
            if not isinstance(error, YAMLError):  # whose line says more
                self.refuse_files(parsed)
            raise self.explain(error, parsed, self.defaults, multirun) from error
        self.refuse_files(parsed)
        cfg.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
        return decode_environment(cfg, self._read_default_values)

    def _read_default_values(self) -> Any:
        """Compose the chosen options once more, without values that overrides set."""
        assert self.defaults is not None
        return OmegaConf.to_container(self._compose_config_from_defaults_list(*self.defaults))

    def refuse_senseless(self, overrides: Sequence[Override]) -> None:
        """Refuse what Hydra would take, and make nothing of or fail at without a word of use.

        Args:
            overrides: parsed.

        Raises:
            ConfigError: an override has no key, or takes away what every run has.
        """
        for override in overrides:
            key = override.key_or_group
            if not key:
                raise ConfigError(f"'{override.input_line}' has no key: write key=value")
            if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
                if not self.repository.group_exists(key):
                    raise ConfigError(f"{override.input_line}: {key} is no group of options")
                if not list(override.sweep_string_iterator()):
                    raise ConfigError(f"{override.input_line}: no option has such a name")
            if key.partition(".")[0] == "choices":
                raise ConfigError(f"{override.input_line}: it tells what GROUP=NAME has chosen")
            if self.repository.group_exists(key) and not _chooses_names(override):
                raise ConfigError(
                    f"{override.input_line}: options are chosen by name (truerisk parts {key})"
                )
            if override.is_delete() and key in LISTS:
                remedy = f"one of several is taken away by ~{key}.NAME"
                raise ConfigError(f"{override.input_line}: {remedy}, all are by ~{key}")
            if override.is_delete() and key in ALWAYS:
                raise ConfigError(
                    f"{override.input_line}: every run has this key; leave it out to have what the "
                    f"option's file says, or set it: {key}=…"
                )
            groups = (*list_groups(self.where), "hydra") if override.is_delete() else ()
            if override.is_delete() and key.partition(".")[0] not in groups:
                remedy = f"leave it out to have what conf/{PRIMARY}.yaml says"
                if inner := [inner for inner, value in _list_leaves(key) if value is None]:
                    remedy = f"what may be off is taken away so: ~{', ~'.join(inner)}"
                if _list_leaves(key):
                    raise ConfigError(f"{override.input_line}: every run has this key; {remedy}")

    def refuse_files(self, overrides: Sequence[Override]) -> None:
        """Refuse options of the user's own that overrides choose, if they lack what makes them one.

        Args:
            overrides: parsed.

        Raises:
            ConfigError: it names the file, and the line that it lacks.
        """
        if len(self.where) > 1:
            for override in overrides:
                if not override.is_delete():
                    for name in _list_choices(override):
                        self._refuse_file(override.key_or_group, name)

    def _refuse_file(self, group: str, name: str) -> None:
        """Refuse an option of the user's own whose file lacks what makes it one."""
        file = list_options(group, self.where).get(name)
        # the package's own are tested
        if file is None or file.is_relative_to(self.where[0]):
            return
        kinds = {"experiment": "experiment", **dict.fromkeys(LISTS, "list")}
        kind = kinds.get(group, "single" if group in SINGLE else "")
        if kind and (fault := find_fault(file, kind, self.where, read_default_groups(self.where))):
            raise ConfigError(fault)

    def read_overrides(self, overrides: Sequence[str]) -> list[Override]:
        """Read overrides by Hydra's grammar.

        Raises:
            ConfigError: one of them cannot be read.
        """
        try:
            # the loader lists the options that glob(…) means
            return list(OverridesParser.create(self).parse_overrides(list(overrides)))
        except MISTAKES as error:
            raise explain_error(error, self.where) from error

    def apply_overrides(self, overrides: Sequence[Override], cfg: DictConfig) -> None:
        """Set the values that overrides name, in place; errors are Hydra's own.

        Args:
            overrides: of values, not of options.
            cfg: a configuration in struct mode.
        """
        self._apply_overrides_to_config(list(overrides), cfg)

    def explain(
        self,
        error: Exception,
        overrides: Sequence[Override],
        defaults: Defaults | None,
        multirun: bool = False,
    ) -> ConfigError:
        """Explain an error that Hydra raised while it composed, or set values.

        Args:
            error: Hydra's.
            overrides: those it composed with.
            defaults: the options they choose; None where it failed before that was known.
            multirun: whether several values were allowed.
        """
        composition = None
        if defaults is not None:
            # composed once more, as Hydra sets values in place, and keeps nothing from before
            config: Any = OmegaConf.to_container(self._compose_config_from_defaults_list(*defaults))
            chosen: dict[str, list[str]] = {}
            for default in defaults[0]:
                group, _, name = (default.config_path or "").rpartition("/")
                placed_elsewhere = default.package != group.replace("/", ".")
                if group and not placed_elsewhere and not name.startswith("_"):
                    chosen.setdefault(group, []).append(name)
            composition = Composition(config, chosen)
        return explain_error(error, self.where, overrides, composition, multirun)

    def find_conditional(self, overrides: Sequence[Override]) -> list[Override]:
        """Find the overrides of values that lie below a group whose options are swept.

        Args:
            overrides: parsed.
        """
        swept = {o.key_or_group for o in overrides if self._sweeps_options(o)}
        values = [o for o in overrides if o.type == OverrideType.CHANGE and "." in o.key_or_group]
        return [o for o in values if o.key_or_group.partition(".")[0] in swept]

    def fits_some_option(self, override: Override, overrides: Sequence[Override]) -> bool:
        """Tell whether one of the swept options of its group has the key of an override.

        Args:
            override: one of those that `find_conditional` finds.
            overrides: all of them, parsed.
        """
        group = override.key_or_group.partition(".")[0]
        axis = next(o for o in reversed(overrides) if o.key_or_group == group)
        others = [o for o in overrides if o is not axis and self._sweeps_options(o)]
        firsts = [self._take_first_option(o) for o in others]
        for option in axis.sweep_string_iterator():
            # null: it is the key that matters, not whether the value suits it
            texts = [*firsts, f"{axis.get_key_element()}={option}", f"{override.key_or_group}=null"]
            with suppress(*MISTAKES):
                super().load_configuration(PRIMARY, texts, RunMode.RUN)
                return True
        return False

    def _sweeps_options(self, override: Override) -> bool:
        return override.is_discrete_sweep() and self.repository.group_exists(override.key_or_group)

    def _take_first_option(self, override: Override) -> str:
        # Hydra itself leaves a swept group at its default here, and so refuses
        # `-m optimizer=momentum,nesterov optimizer.momentum=0.5`
        if self._sweeps_options(override):
            return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
        return str(override.input_line)

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """List the visible options of a group, for help and completion; arguments are Hydra's."""
        options = super().get_group_options(group_name, results_filter, config_name, overrides)
        return [name for name in options if not name.startswith(("_", "."))]

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        loaded = super()._load_single_config(default, repo)
        # Hydra copies what has a package, and sets values in all else in place
        if loaded is repo.load_config(default.config_path):
            loaded = copy.deepcopy(loaded)
        return loaded

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        _refuse_several(defaults)
        # before Hydra applies overrides of values, so that they find the nodes they set
        cfg = super()._compose_config_from_defaults_list(defaults, repo)
        # not the cache, whose configurations are changed by the values that are set in place
        self.defaults = (defaults, getattr(repo, "delegate", repo))
        if isinstance(cfg.get("seed"), int):  # an experiment's short form
            cfg.seed = {"base": cfg.seed, **dict.fromkeys(Streams._fields)}
        for group in (*LISTS, *(folder.name for folder in self.where[0].glob("*/"))):
            if group not in ("experiment", "hydra"):
                cfg.setdefault(group, {})
        return cfg


class _Options(ConfigRepository):
    """Options as they stand, also where a plugin has registered others of the same name.

    Hydra 1.3 merges an option into one so registered, of whatever package, and warns of it; 1.4
    does neither. A file is read once: a sweep composes each choice of options anew.
    """

    def __init__(self, path: ConfigSearchPath) -> None:
        super().__init__(path)
        self._read: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Options:
        twin = copy.copy(self)  # Hydra takes one for each configuration; what was read is for all
        twin.sources = copy.deepcopy(self.sources, memo)
        return twin

    def load_config(self, config_path: str) -> Any:
        """Load a file, which is not to be changed, once."""
        if config_path not in self._read:
            self._read[config_path] = self._read_file(config_path)
        return self._read[config_path]

    def _read_file(self, config_path: str) -> Any:
        """Read a file, unless this process has read it as it stands."""
        source: Any = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() not in ("file", "pkg"):
            return super().load_config(config_path)
        key: tuple[str | int, ...] = (source.provider, source.full_path(), config_path)
        if source.scheme() == "file":  # a package's stay what they are
            stat = Path(source.path, source._normalize_file_name(config_path)).stat()
            key += (stat.st_mtime_ns, stat.st_size)
        if key not in FILES:
            FILES[key] = super().load_config(config_path)
        return FILES[key]

    def get_schema_source(self) -> Any:
        raise ConfigLoadError("options have no schema but the signatures they are for")


def _refuse_several(defaults: Sequence[Any]) -> None:
    """Refuse two options of a group that takes one, and one twice: Hydra would merge their keys."""
    names: dict[str, list[str]] = {}
    for default in defaults:
        group, _, name = (default.config_path or "").rpartition("/")
        # an option's own defaults stand below it, those of the command line below the primary
        if default.parent == PRIMARY and group in (*SINGLE, *LISTS, "param_groups"):
            names.setdefault(group, []).append(name)
    for group, chosen in names.items():
        if group in LISTS:
            if twice := next((name for name in chosen if chosen.count(name) > 1), ""):
                raise ConfigError(
                    f"{group}=[{','.join(chosen)}] names {twice} twice, which counts once: leave "
                    f"one out, and set its numbers under {group}.{twice}"
                )
        elif len(chosen) > 1:
            raise ConfigError(
                f"{group}=[{','.join(chosen)}]: one option is chosen of this group, such as "
                f"{group}={chosen[0]}; to run each in turn: -m {group}={','.join(chosen)}"
            )


def _list_choices(override: Override) -> list[str]:
    """List the options that an override of a group names, one or several, or each in turn."""
    if override.is_sweep_override():
        texts = override.sweep_string_iterator() if override.is_discrete_sweep() else []
        return [name for text in texts for name in re.findall(r"[\w-]+", text)]
    value = override.value()
    return [str(name) for name in (value if isinstance(value, list) else [value])]


def _chooses_names(override: Override) -> bool:
    """Tell whether what lists choose of a group, or several values in turn, can be names at all."""
    value = override.value()
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    listed = [name for choice in choices if isinstance(choice, list) for name in choice]
    missing = isinstance(value, ChoiceSweep) and None in choices
    return not missing and all(isinstance(name, str | QuotedString) for name in listed)


def decode_environment(cfg: DictConfig, read_defaults: Callable[[], Any]) -> DictConfig:
    """Read numbers, switches and null out of what the environment says (``${oc.env:SEED,7}``).

    Variables are texts. One becomes a text where the option has a text of its own, and is read as
    YAML reads it elsewhere.

    Args:
        cfg: a composed configuration, changed in place.
        read_defaults: gives it without the values of the command line, as plain containers.
    """
    raw: Any = OmegaConf.to_container(cfg)
    found = list(_find_environment(raw, []))
    defaults = read_defaults() if found else {}
    for path in found:
        node: Any = defaults
        for part in path:
            if isinstance(node, list | tuple):
                node = {str(i): value for i, value in enumerate(node)}
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, str) and node not in WORDS and not ENVIRONMENT.fullmatch(node):
            continue
        key = ".".join(path)
        with suppress(OmegaConfBaseException):  # a variable that is not set is told later
            value = _read_scalar(OmegaConf.select(cfg, key))
            if isinstance(value, int | float | None):
                OmegaConf.update(cfg, key, value)
    return cfg


def _read_scalar(text: str | None) -> Any:
    """Read a number, a switch or null as a configuration does: ``1e-2`` is one, ``012`` is none."""
    try:
        value = OmegaConf.create({"text": text, "value": "${oc.decode:${text}}"}).value
    except OmegaConfBaseException:
        return text
    if isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return value.lower() in ("yes", "on")  # in YAML, though not in Hydra's grammar
    return value


def _find_environment(node: Any, path: list[str]) -> Iterator[list[str]]:
    """Find the keys whose whole value is a variable of the environment."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name != "hydra":
                yield from _find_environment(value, [*path, str(name)])
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _find_environment(value, [*path, str(i)])
    elif isinstance(node, str) and ENVIRONMENT.fullmatch(node):
        yield path


def _keep_choices(cfg: DictConfig) -> DictConfig:
    """Keep the names of the options beside what they hold: ``momentum`` is more than an SGD."""
    chosen = {k: v for k, v in cfg.hydra.runtime.choices.items() if k.isidentifier()}
    with open_dict(cfg):
        cfg.choices = {k: v for k, v in chosen.items() if "_target_" in (cfg.get(k) or {})}
    return cfg


def make_callbacks(cfg: DictConfig) -> Callbacks:
    """Make the callbacks that Hydra is to call at its jobs, those of ``hydra.callbacks``."""
    # here, as it imports pydantic, which --cfg has no need of
    from truerisk.config.targets import permit_targets

    with permit_targets(OmegaConf.to_container(cfg.hydra.callbacks, resolve=True)):
        return Callbacks(cfg)


def make_hydra(loader: ConfigLoader) -> Hydra:
    """Make Hydra's application, which shows help and configurations and runs sweeps of others."""
    from hydra._internal.hydra import Hydra

    return Hydra("truerisk", loader)


@contextmanager
def unread_help() -> Iterator[None]:
    """Let Hydra 1.3 make its parser on Python 3.14: one help is no text before it is shown."""
    kind: Any = argparse.ArgumentParser
    kind._check_help = lambda parser, action: None
    try:
        yield
    finally:
        del kind._check_help  # what it inherits is there again


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make Hydra's parser of a command line.

    Args:
        program: what its usage calls the command.
    """
    with unread_help():
        parser: Any = get_args_parser()
    parser.prog = program
    parser.error = partial(refuse_arguments, parser)
    return parser


@contextmanager
def hydra_session() -> Iterator[None]:
    """Set Hydra's global state up for us, then back to what a surrounding program had."""
    # the singletons themselves: a notebook may be inside a Hydra program of its own
    instances: dict[type, Any] = Singleton._instances
    held: dict[type, Any] = {kind: instances.pop(kind) for kind in STATE if kind in instances}
    if ASKS_BASE:
        version.setbase(VERSION_BASE)  # without it Hydra warns, and works in the run's folder
    setup_globals()
    try:
        yield
    finally:
        for kind in STATE:
            instances.pop(kind, None)
        instances.update(held)


def drop_hydra(cfg: DictConfig) -> DictConfig:
    """Copy a configuration without Hydra's own node."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """Turn a configuration into plain containers, without Hydra's own node.

    Raises:
        ConfigError: a value is missing (``???``) or an interpolation leads nowhere.
    """
    try:
        own = drop_hydra(cfg) if "hydra" in cfg else cfg  # a copy takes longer than all the rest
        container = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise explain_unresolved(error) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> DictConfig:
    """Compose the configuration that ``truerisk train OVERRIDES`` would run.

    Works in a notebook and inside another Hydra program, whose state it leaves alone.

    Args:
        overrides: as on the command line.
        config_dir: a folder with options of the user's own.

    Raises:
        ConfigError: an override, or a YAML file it leads to, is wrong.
    """
    from truerisk.config.cell_composer import compose_known

    texts, job = expand_short_forms(overrides), None
    with hydra_session():
        loader = ConfigLoader(config_dir)
        if config_dir is None:
            job = compose_known(loader, texts)
        if job is None:
            cfg = loader.load_configuration(PRIMARY, texts, RunMode.RUN, from_shell=False)
            job = drop_hydra(cfg)
    OmegaConf.set_struct(job, True)
    resolve_config(job)  # for its errors; interpolations stay, so that a value can still be changed
    return job


def override_config(
    cfg: DictConfig, overrides: Sequence[str], config_dir: str | None = None
) -> DictConfig:
    """Replace some of a finished run's configuration.

    ``data.label_noise=0`` changes the run's own data; ``data=arrays data.source.path=new.npz`` puts
    another option in its place.

    Args:
        cfg: the run's configuration, which is left as it is.
        overrides: as on the command line.
        config_dir: a folder with options of the user's own.

    Raises:
        ConfigError: an override is wrong.
    """
    changed = OmegaConf.create(resolve_config(cfg))
    with hydra_session():
        loader = ConfigLoader(config_dir)
        parsed = loader.read_overrides(overrides)
        chosen = {o.key_or_group for o in parsed if loader.repository.group_exists(o.key_or_group)}
    for group in chosen:
        own = [str(o.input_line) for o in parsed if o.key_or_group.partition(".")[0] == group]
        changed[group] = compose(own, config_dir)[group]
    OmegaConf.set_struct(changed, True)
    # one by one, so that an error belongs to one override
    for change in (o for o in parsed if o.key_or_group.partition(".")[0] not in chosen):
        try:
            loader.apply_overrides([change], changed)
        except MISTAKES as error:
            path = change.key_or_group.split(".")
            hint = nearest_in(OmegaConf.to_container(changed), path)
            raise ConfigError(f"{change.input_line}: {hint}; see the run's config.yaml") from error
    return changed


def expand_short_forms(overrides: Sequence[str]) -> list[str]:
    """Rewrite ``seed=3`` (also ``seed=1,2`` and ``seed=range(20)``), and what is taken away.

    Hydra takes a key away with ``~``; here every run has every key, so what may be off is off.

    >>> expand_short_forms(["seed=range(20)", "optimizer=sgd"])
    ['seed.base=range(20)', 'optimizer=sgd']
    >>> expand_short_forms(["~step.clip", "~scheduler"])
    ['step.clip.norm=null', 'step.clip.value=null', 'scheduler=constant']
    """
    expanded = []
    for text in overrides:
        key = text.removeprefix("~")
        leaves = [] if "=" in key else _list_leaves(key)
        if key == text:
            expanded.append(re.sub(r"^(\+{0,2})seed=(?!\s*\{)", "seed.base=", text))
        elif key in NEUTRAL:
            expanded.append(f"{key}={NEUTRAL[key]}")
        elif leaves and all(value is None for _, value in leaves):
            expanded += [f"{leaf}=null" for leaf, _ in leaves]
        else:
            expanded.append(text)
    return expanded


def list_removable() -> list[str]:
    """List what may be taken away of any run, as overrides.

    >>> [text for text in list_removable() if text.startswith("~s")]
    ['~scheduler', '~step.clip', '~step.clip.norm', '~step.clip.value', '~stop', \
'~stop.gradient_norm', '~stop.relative_decrease']
    """
    leaves = [leaf for key in ("step.clip", "stop") for leaf, _ in _list_leaves(key)]
    return [f"~{key}" for key in sorted((*NEUTRAL, "experiment", "step.clip", "stop", *leaves))]


@cache
def _list_leaves(key: str) -> list[tuple[str, Any]]:
    """List the keys of conf/train.yaml at and below one, no groups, each with its value."""
    node = yaml.safe_load((conf_dir() / f"{PRIMARY}.yaml").read_text(encoding="utf-8"))
    for part in ("hydra", "defaults"):
        del node[part]
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return []
        node = node[part]
    leaves, inner = [], [(key, node)]
    while inner:
        name, value = inner.pop(0)
        if isinstance(value, dict):
            inner += [(f"{name}.{part}", below) for part, below in value.items()]
        else:
            leaves.append((name, value))
    return leaves


def quote_override(text: str) -> str:
    """Write a text as a string of Hydra's override grammar.

    >>> print(quote_override("lr=0.1, it's"))
    "lr=0.1, it's"
    """
    if "'" in text:
        return f'"{text}"'
    return f"'{text}'"


LENGTHENS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
"""Keys that may be set anew beside ``resume``."""


def expand_resume(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """Let Hydra work in the folder that ``resume=FOLDER`` names, where it is among the overrides.

    Args:
        overrides: as on the command line.
        multirun: whether they ask for a sweep.

    Raises:
        UserError: the folder is missing, or something else is asked for at once.
    """
    matches = [re.fullmatch(r"\+{0,2}resume=(.*)", text, re.S) for text in overrides]
    values = [match[1].strip("'\"") for match in matches if match]
    if len(set(values)) > 1:
        raise UserError(f"resume={values[0]} resume={values[1]}: one run is gone on with at a time")
    if not values or values[-1] == "null":
        return list(overrides)
    if not values[-1].strip():  # as a variable of the shell is that was not set
        raise UserError("resume is empty: name a run's folder, or leave it out")
    hydra = [o for o in overrides if o.lstrip("+~").startswith("hydra")]
    others = [o for o in overrides if o not in hydra and "resume" not in o.partition("=")[0]]
    longer = [o for o in others if o.partition("=")[0].lstrip("+") in LENGTHENS]
    others = [o for o in others if o not in longer]
    if multirun:
        others.append("--multirun")
    if others:
        raise UserError(
            f"resume goes on with a run as it was configured; leave out {others[0]} "
            f"({', '.join(LENGTHENS)} may be larger than they were)"
        )
    # not trainer's own keys, whose default no one could tell from what was asked for
    limits = [o.lstrip("+").replace("trainer.", "++lengthen.", 1) for o in longer]
    folder = quote_override(str(existing_folder(values[-1], "resume")))
    return [*hydra, f"resume={folder}", f"hydra.run.dir={folder}", *limits]
