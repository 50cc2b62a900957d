"""Operations on a batch of images, each image with its own strength, and the policies of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS = 30
"""The largest strength, of which a magnitude is a share."""
LEVELS = 256
"""Values of a byte, in which an image is counted and cut."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey (ITU-R BT.601)."""


def take_pixels(x: Tensor, rows: Tensor, columns: Tensor, blank: Tensor) -> Tensor:
    """Put at each place of each image the pixel of another place.

    Args:
        x: images [n, c, h, w].
        rows: of the pixels to put there, int64, broadcast to [n, h, w].
        columns: likewise.
        blank: the colour where they lie outside the image, [c, 1, 1] or [].
    """
    height, width = x.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    # a gather of flat pixels takes a third of the time that indexing by three tensors does
    flat = index.flatten(1).to(x.device)[:, None].expand(-1, x.shape[1], -1)
    taken = x.flatten(2).gather(2, flat).view_as(x)
    return torch.where(inside[:, None].to(x.device), taken, blank)


def grey_levels(x: Tensor) -> Tensor:
    """Return the greys [n, 1, h, w] of images [n, 1 or 3, h, w]."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def blend_colours(x: Tensor, name: str, factors: Tensor, white: float) -> Tensor:
    """Move images away from a plainer one, or towards it: plain + f (x − plain).

    Args:
        x: images [n, c, h, w] between 0 and ``white``.
        name: ``brightness`` (plain is black), ``contrast`` (its mean grey), ``saturation`` (the
            grey image) or ``sharpness`` (the smoothed image).
        factors: f of each image, [n].
        white: where values are cut off.
    """
    plain = PLAINER[name](x)
    return torch.lerp(plain, x, factors[:, None, None, None]).clamp(0, white)


def smooth_images(x: Tensor) -> Tensor:
    """Average each pixel with its eight neighbours, itself counting five times; edges stay."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = x.new_ones(x.shape[1], 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    # as Pillow does: no value is made up beyond the edge
    smoothed = x.clone()
    smoothed[..., 1:-1, 1:-1] = functional.conv2d(x, kernel / 13, groups=x.shape[1])
    return smoothed


PLAINER: Mapping[str, Callable[[Tensor], Tensor]] = {
    "brightness": torch.zeros_like,
    "contrast": lambda x: grey_levels(x).mean((2, 3), keepdim=True).expand_as(x),
    "saturation": lambda x: grey_levels(x).expand_as(x),
    "sharpness": smooth_images,
}
"""The images that each kind of colour moves away from."""


def map_places(x: Tensor, matrices: Tensor, shifts: Tensor, blank: Tensor) -> Tensor:
    """Put at each place p, counted from the centre, the pixel nearest to A p + b.

    Args:
        x: images [n, c, h, w].
        matrices: A of each image, on (row, column), [n, 2, 2].
        shifts: b, [n, 2].
        blank: the colour of what lies outside.
    """
    height, width = x.shape[2:]
    centre = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64)
    # from the centre, so that images turn about it and shear both ways
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack(grid, -1).flatten(0, 1) - centre
    source = places @ matrices.mT + (shifts + centre)[:, None]
    rows, columns = source.round().long().unflatten(1, (height, width)).unbind(-1)
    return take_pixels(x, rows, columns, blank)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading bits of each value: x [n, c, h, w] from 0 to 255, ``bits`` [n]."""
    steps = (2.0 ** (8 - bits)).to(x)[:, None, None, None]
    return (x.round() / steps).floor() * steps


def solarize(x: Tensor, thresholds: Tensor) -> Tensor:
    """Invert values that reach a threshold [n]: x [n, c, h, w] from 0 to 255."""
    return torch.where(x >= thresholds.to(x)[:, None, None, None], 255 - x, x)


def stretch_contrast(x: Tensor) -> Tensor:
    """Stretch each channel of each image to values from 0 to 255; a constant one stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    spread = high - low
    # the floor is for constant channels, which are put back below
    stretched = (x - low) * (255 / spread.clamp(min=1e-9))
    return torch.where(spread > 0, stretched, x)


def equalize_levels(x: Tensor) -> Tensor:
    """Give each channel of each image as level a histogram as can be, in bytes.

    A value goes to its rank among all pixels, as Pillow's ``ImageOps.equalize`` counts it.
    """
    values = x.round().long().clamp(0, LEVELS - 1).flatten(2)
    counts = torch.zeros(*values.shape[:2], LEVELS, dtype=torch.long, device=x.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    # all but the pixels of the highest value, as those become white
    last = counts.gather(2, values.amax(2, keepdim=True))
    # whole numbers throughout, or ranks near a border would fall to either side
    step = (values.shape[2] - last) // (LEVELS - 1)
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=LEVELS - 1)
    return torch.where(step > 0, table.gather(2, values).to(x), values.to(x)).view_as(x)


class Ranges(NamedTuple):
    """How far the operations of a policy go at full strength.

    Attributes:
        shear: pixels sideways a pixel down, or down a pixel sideways.
        shift: how far images are moved, as a share of the side, or in pixels.
        angle: degrees of a rotation.
        colour: the b of factors 1 ± b.
        bits: leading bits that are lost.
    """

    shear: float
    shift: float
    angle: float
    colour: float
    bits: int


POLICIES: Mapping[str, Ranges] = {
    "randaugment": Ranges(0.3, 150 / 331, 30, 0.9, 4),
    "trivial": Ranges(0.99, 32.0, 135, 0.99, 6),
}
"""Ranges of Cubuk et al. 2020 and, "wide", of Müller & Hutter 2021."""
COLOURS = ("brightness", "contrast", "saturation", "sharpness")
MOVES = ("shear rows", "shear columns", "shift rows", "shift columns", "rotate")
OPERATIONS = ("identity", *MOVES, *COLOURS, "posterize", "solarize", "autocontrast", "equalize")


def apply_operations(
    x: Tensor,
    policy: str,
    draws: Tensor,
    strength: float | None,
    white: float,
    blank: Tensor,
) -> Tensor:
    """Apply to each image one of the fourteen operations, each as likely.

    Args:
        x: images [n, c, h, w] between 0 and ``white``.
        policy: whose ranges are taken.
        draws: uniform numbers [3, n]: which operation, in which direction, how strong.
        strength: of all, in [0, 1]; None for one of 0, 1/30 … 1 a sample, as drawn.
        white: value of a white pixel.
        blank: the colour of what lies outside.
    """
    chosen = (draws[0] * len(OPERATIONS)).long()
    signs = torch.where(draws[1] < 0.5, -1.0, 1.0).double()
    strengths = (draws[2] * (STRENGTHS + 1)).floor() / STRENGTHS
    if strength is not None:
        strengths = torch.full_like(strengths, strength)
    x = x.clone()
    # operations were drawn on the CPU, so that which rows are whose is known without a GPU's answer
    for number, name in enumerate(OPERATIONS):
        rows = torch.nonzero(chosen == number).flatten()
        if len(rows) and name != "identity":
            there = rows.to(x.device)
            # in the units of bytes, in which levels and bits are counted
            image = x[there] * (255 / white)
            edges = blank * (255 / white)
            edited = operate(image, name, POLICIES[policy], signs[rows], strengths[rows], edges)
            x[there] = (edited * (white / 255)).clamp(0, white)
    return x


def operate(
    x: Tensor, name: str, ranges: Ranges, signs: Tensor, strengths: Tensor, blank: Tensor
) -> Tensor:
    """Apply one operation.

    Args:
        x: images [n, c, h, w] from 0 to 255.
        name: one of ``OPERATIONS``.
        ranges: of the policy.
        signs: the direction for each image, −1 or 1, [n].
        strengths: in [0, 1], [n].
        blank: the colour of what lies outside.
    """
    if name in MOVES:
        matrices, shifts = place_map(name, ranges, signs * strengths, x.shape[2:])
        return map_places(x, matrices, shifts, blank)
    if name in COLOURS:
        factors = (1 + signs * strengths * ranges.colour).to(x)
        return blend_colours(x, name, factors, 255)
    if name == "posterize":
        return posterize(x, 8 - (strengths * ranges.bits).round())
    if name == "solarize":
        return solarize(x, 255 * (1 - strengths))
    if name == "autocontrast":
        return stretch_contrast(x)
    return equalize_levels(x)


def place_map(
    name: str, ranges: Ranges, amounts: Tensor, size: torch.Size | tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the map from places to the places whose pixels go there.

    Args:
        name: one of ``MOVES``.
        ranges: of the policy.
        amounts: in [−1, 1], [n].
        size: (height, width).

    Returns:
        Matrices [n, 2, 2] and shifts [n, 2]; see `map_places`.
    """
    matrices = torch.eye(2, dtype=torch.float64).repeat(len(amounts), 1, 1)
    shifts = torch.zeros(len(amounts), 2, dtype=torch.float64)
    if name == "rotate":
        angles = amounts * math.radians(ranges.angle)
        cos, sin = angles.cos(), angles.sin()
        matrices = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)
    elif name.startswith("shear"):
        row, column = (0, 1) if name == "shear rows" else (1, 0)
        matrices[:, row, column] = amounts * ranges.shear
    else:
        axis = 0 if name == "shift rows" else 1
        # TrivialAugment tells its range in pixels, RandAugment as a share of an image of 331
        whole = ranges.shift if ranges.shift >= 1 else ranges.shift * size[axis]
        shifts[:, axis] = (amounts * whole).round()
    return matrices, shifts
