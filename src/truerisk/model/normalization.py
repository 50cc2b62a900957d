"""Normalization layers by name."""

from __future__ import annotations

from torch import nn

from truerisk.core.errors import ConfigError, suggest

NORMALIZATIONS = ("none", "batch", "layer", "group")
BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def normalization(name: str, width: int, dims: int = 0, groups: int = 1) -> nn.Module | None:
    """Build a normalization of ``width`` channels over ``dims`` spatial dimensions.

    Each subtracts a mean, divides by a standard deviation and applies a learned scale and shift a
    channel. ``batch`` measures them a channel over the batch and all positions (Ioffe & Szegedy
    2015), ``layer`` a sample over all channels and positions (Ba, Kiros & Hinton 2016), ``group`` a
    sample over each of ``groups`` sets of channels (Wu & He 2018). ``none`` gives None.

    Raises:
        ConfigError: there is no normalization of that name, or ``groups`` does not divide
            ``width``, or would leave one number to a group, whose normalized value is always zero.

    >>> normalization("group", width=8, dims=1, groups=4).num_groups
    4
    """
    if name not in NORMALIZATIONS:
        hint = suggest(str(name), NORMALIZATIONS)
        raise ConfigError(f"model.normalization={name} is not known; {hint}")
    if name == "batch":
        return BATCH_NORM[dims](width)
    if name == "layer":
        return nn.GroupNorm(1, width) if dims else nn.LayerNorm(width)
    return group_norm(groups, width, dims) if name == "group" else None


def group_norm(groups: int, width: int, dims: int) -> nn.GroupNorm:
    """Group normalization whose groups fit the width; see `normalization`."""
    usable = [g for g in range(1, width + 1) if width % g == 0 and (dims or g < width)]
    if groups not in usable:
        options = ", ".join(map(str, usable)) or "none"
        raise ConfigError(
            f"model.groups={groups} does not fit a layer of width {width}; possible: {options}"
        )
    return nn.GroupNorm(groups, width)
