"""Initial weights from elsewhere: another run, a checkpoint, a state dict; parts of them frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from truerisk.core.errors import ConfigError, first_line
from truerisk.core.parameter_rules import MATCHERS, split_parameters

WEIGHTS = ("best", "last")
CONTAINERS = ("state", "state_dict", "model_state_dict", "model")
"""Keys under which checkpoints of ours and of others have their state dict."""
SHOWN = 6
"""Names that a line lists."""


class Pretrained:
    """Gives a model the weights and running statistics that a file has for it, by name and shape.

    Names may differ in what stands before them (``module.``, ``backbone.``), on either side. What
    the file lacks, or has in another shape, keeps the weights that the model was built with, and
    ``notes`` name it. ``freeze`` is an ordered list of rules as ``param_groups`` has them: the
    first that matches a parameter says whether it stays as it was loaded (``freeze: false`` lets it
    train); what none matches trains. A norm whose parameters are all frozen keeps its running
    statistics, and normalises by them.

    Args:
        path: a run folder, a checkpoint, a state dict saved by torch, or a .safetensors file.
        weights: of a run folder, ``best`` or ``last``.
        freeze: rules with any of ``name`` (a regular expression), ``min_ndim``, ``max_ndim``, and
            ``freeze``, true where it is left out; a text is such a name. ``{}`` matches all.

    Attributes:
        notes: what was loaded, what was not, and what is frozen, a line each; once called.

    Raises:
        ConfigError: there is no such file, nothing in it fits, or a rule matches nothing.
    """

    needs_data = False

    def __init__(
        self,
        path: str | None = None,
        weights: str = "best",
        freeze: Sequence[Mapping[str, Any] | str] = (),
    ) -> None:
        if path is None:
            raise ConfigError(
                "initializer.path is not set: give a run folder, a checkpoint, a state dict or a "
                ".safetensors file"
            )
        if weights not in WEIGHTS:
            raise ConfigError(f"initializer.weights is '{weights}': give best or last")
        rules = [{"name": rule} if isinstance(rule, str) else dict(rule) for rule in freeze]
        for rule in rules:
            if strange := set(rule) - {*MATCHERS, "freeze"}:
                raise ConfigError(
                    f"initializer.freeze: a rule has {', '.join(MATCHERS)} and freeze, not "
                    f"{min(strange)!r}"
                )
        self.path, self.weights, self.freeze = path, weights, rules
        self.notes: list[str] = []

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor | None = None) -> None:
        """Load the weights in place, and freeze.

        Args:
            model: the model.
            x: not used; some initializers measure on a batch.

        Raises:
            ConfigError: nothing in the file fits, or a rule matches nothing.
        """
        own = model.state_dict()
        found = match_names(read_state(self.path, self.weights), own)
        fitting = {n: t for n, t in found.items() if n in own and t.shape == own[n].shape}
        if not any(name in fitting for name, _ in model.named_parameters()):
            raise ConfigError(
                f"initializer.path={self.path}: nothing in it fits the model: it has "
                f"{list_names(describe_shapes(found))}, and the model "
                f"{list_names(describe_shapes(own))}"
            )
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
        self.notes = [f"{self.path}: {len(fitting)} of {len(own)} tensors loaded"]
        missing = [name for name in own if name not in found]
        other = [
            f"{n} {list(t.shape)} instead of {list(own[n].shape)}"
            for n, t in found.items()
            if n in own and n not in fitting
        ]
        unused = [name for name in found if name not in own]
        for what, names in {
            "not in it, so as the model was built": missing,
            "of another shape there, so as the model was built": other,
            "without a place in the model": unused,
        }.items():
            if names:
                self.notes.append(f"{what}: {list_names(names)}")
        self.freeze_parameters(model)

    def freeze_parameters(self, model: nn.Module) -> None:
        """Freeze what the rules say, and the statistics of norms that are frozen altogether.

        Args:
            model: the model.
        """
        if not self.freeze:
            return
        rules = [{"freeze": True, **rule} for rule in self.freeze]
        try:
            groups = split_parameters(model.named_parameters(), rules)
        except ConfigError as error:
            raise ConfigError(f"initializer.freeze: {error}") from None
        # what no rule matches has no number of that name
        chosen = [group for numbers, group in groups if numbers.get("freeze")]
        frozen = [parameter for group in chosen for parameter in group.values()]
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, _NormBase) and own and not any(p.requires_grad for p in own):
                # its mode stays, as measuring gives each module back the mode it had
                module.eval()
        total = sum(p.numel() for p in model.parameters())
        self.notes.append(f"frozen: {sum(p.numel() for p in frozen)} of {total} parameters")


def read_state(path: str, weights: str = "best") -> dict[str, Tensor]:
    """Read tensors by name.

    Args:
        path: a run folder, a checkpoint, a state dict, or a .safetensors file.
        weights: of a run folder, ``best`` or ``last``.

    Raises:
        ConfigError: it is missing, or holds no tensors by name.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "checkpoints" / f"{weights}.ckpt"
    if not file.is_file():
        raise ConfigError(f"initializer.path: there is no {file}")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        # `weights_only`, as a pickle that comes from elsewhere could run any code
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        why = first_line(error).partition(". ")[0]
        raise ConfigError(
            f"initializer.path: {file} cannot be read as weights alone ({why}); save "
            "model.state_dict()"
        ) from None
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    found: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        found = {str(name): t for name, t in content.items() if isinstance(t, Tensor)}
    if not found:
        raise ConfigError(f"initializer.path: {file} holds no tensors by name")
    return found


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a .safetensors file.

    Args:
        file: its path.

    Raises:
        ConfigError: the library is missing, or the file is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ConfigError(
            f"initializer.path: {file} needs safetensors: pip install 'truerisk[export]'"
        ) from None
    try:
        tensors: dict[str, Tensor] = load_file(str(file))
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"initializer.path: {file} cannot be read ({first_line(error)})"
        ) from None
    return tensors


def match_names(found: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name tensors as a model does, where the two differ in what stands before the names.

    Args:
        found: tensors by name.
        own: the model's state dict.

    Returns:
        The tensors, by the names that make most of them fit.

    >>> own = {"net.fc.weight": torch.zeros(2, 2), "net.fc.bias": torch.zeros(2)}
    >>> sorted(match_names({"module.fc.weight": torch.ones(2, 2)}, own))
    ['net.fc.weight']
    """
    changes: Counter[tuple[str, str]] = Counter({("", ""): 0})
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    for name, tensor in found.items():
        parts = name.split(".")
        for mine in (n for n, shape in shapes.items() if shape == tuple(tensor.shape)):
            theirs, length = mine.split("."), 0
            # as long an end as both have
            while (
                length < min(len(parts), len(theirs)) and parts[-1 - length] == theirs[-1 - length]
            ):
                length += 1
            if length:
                changes[_join(parts[:-length]), _join(theirs[:-length])] += 1
    # of equally good ones the plain names
    old, new = max(changes, key=lambda pair: (changes[pair], pair == ("", "")))
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in found.items()
    }


def _join(parts: Sequence[str]) -> str:
    return "".join(f"{part}." for part in parts)


def describe_shapes(state: Mapping[str, Tensor]) -> list[str]:
    """Return each tensor's name and shape."""
    return [f"{name} {list(tensor.shape)}" for name, tensor in state.items()]


def list_names(names: Sequence[str]) -> str:
    """Write the first names, and how many more there are.

    >>> list_names(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
