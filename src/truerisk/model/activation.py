"""Activation functions by name."""

from __future__ import annotations

from torch import nn

from truerisk.core.errors import ConfigError, suggest

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """A new activation module: one for each place of use, so that each can be found and edited.

    Raises:
        ConfigError: there is no activation of that name.

    >>> activation("relu")
    ReLU()
    """
    if name not in ACTIVATIONS:
        hint = suggest(str(name), ACTIVATIONS)
        raise ConfigError(f"model.activation={name} is not known; {hint}")
    return ACTIVATIONS[name]()
