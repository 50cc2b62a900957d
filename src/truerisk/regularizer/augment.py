"""Augmentation of images: crops, mirror images, cutout, colours, policies of operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.regularizer.base import Regularizer
from truerisk.regularizer.image_operations import (
    POLICIES,
    STRENGTHS,
    apply_operations,
    blend_colours,
    take_pixels,
)

KEY = "regularizer.augment"
BLACK = 1e-5
"""Share of white that black pixels may exceed by rounding, once standardized and back."""
DARKEST = 0.01
"""Share of white that the brightest pixel of a first batch exceeds, unless units are mistaken."""


class Augment(Regularizer):
    """Trains on other views of each image, drawn anew for every sample of every batch.

    One after another, as far as they are asked for: a window of the image's size, moved by up to
    ``crop`` pixels along each side; its mirror image with probability ``flip``; a policy's
    operations; brightness, contrast and saturation times factors U(1 − b, 1 + b); a square of side
    ``cutout`` blanked, its centre anywhere, so that it may hang over. What comes in from outside
    and what is blanked has the mean colour of the training images, or is black where
    ``data.standardize`` is none. Colours and policies work on the images in their own units,
    between black and ``white``, and are cut off there.

    ``policy=randaugment`` takes ``operations`` of the fourteen of RandAugment, each at the strength
    ``magnitude``/30; ``trivial`` takes one at a random strength, with wider ranges.

    All draws come from the CPU's generator, a row of numbers a sample, so that a GPU sees the same
    ones and is never waited for.

    Source: He et al. 2016, §4.2 (crops and flips); DeVries & Taylor, "Improved Regularization of
    Convolutional Neural Networks with Cutout", 2017, §3; Cubuk et al., "RandAugment", 2020, §3;
    Müller & Hutter, "TrivialAugment", ICCV 2021, §3.

    Args:
        crop: pixels a window is moved by at most.
        flip: probability of a mirror image.
        cutout: side of the square, in pixels.
        brightness: b of the factor of all values.
        contrast: b of the factor of the distance to the image's mean grey.
        saturation: b of the factor of a pixel's distance to its own grey.
        policy: None, ``randaugment`` or ``trivial``.
        operations: of ``randaugment``, how many.
        magnitude: of ``randaugment``, from 0 to 30.
        white: value of a white pixel in the data; a black one is 0.
        input_shape: of a sample; filled in.
        standardizer: of the data, with ``mean`` and ``raw``; filled in.

    Raises:
        ConfigError: a number out of range; samples that are no images; at the first batch, pixels
            that are no values between black and white, or are all next to black.
    """

    stacks = (
        *("crop", "flip", "cutout", "brightness", "contrast", "saturation"),
        *("operations", "magnitude"),
    )
    requires = ("real inputs",)

    def __init__(
        self,
        crop: int = 4,
        flip: float = 0.5,
        cutout: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        policy: str | None = None,
        operations: int = 2,
        magnitude: int = 9,
        white: float = 1.0,
        input_shape: Sequence[int] | None = None,
        standardizer: Any = None,
    ) -> None:
        self.crop = check_int(f"{KEY}.crop", crop, least=0)
        self.flip = check_float(f"{KEY}.flip", flip, high=1)
        self.cutout = check_int(f"{KEY}.cutout", cutout, least=0)
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.spreads = {
            name: check_float(f"{KEY}.{name}", spread, high=1) for name, spread in factors.items()
        }
        if policy is not None and policy not in POLICIES:
            raise ConfigError(f"{KEY}.policy={policy} is not known; {suggest(policy, POLICIES)}")
        self.policy = policy
        self.operations = check_int(f"{KEY}.operations", operations)
        self.magnitude = check_int(f"{KEY}.magnitude", magnitude, least=0)
        if magnitude > STRENGTHS:
            raise ConfigError(f"{KEY}.magnitude must be at most {STRENGTHS}, not {magnitude}")
        self.white = check_float(f"{KEY}.white", white, above=True)
        self.standardizer, self._checked = standardizer, False
        # of a function of its weights alone, which the task refuses, nothing is left to say here
        if input_shape is not None and 0 not in input_shape:
            self.check_shape(tuple(input_shape))

    @property
    def colours(self) -> bool:
        """Whether anything but places is changed."""
        return self.policy is not None or any(self.spreads.values())

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse samples that are no images, or that its numbers do not fit.

        Args:
            shape: of one sample.

        Raises:
            ConfigError: it is none of (channels, height, width).
        """
        if len(shape) != 3:
            raise ConfigError(
                "regularizer=augment moves the pixels of images (channels, height, width), but a "
                f"sample has shape {tuple(shape)}: leave augment out of `regularizer`, or give "
                "grey images as (1, height, width)"
            )
        if self.colours and shape[0] not in (1, 3):
            raise ConfigError(
                f"{KEY}: colours and policies are for grey or RGB images, and these have "
                f"{shape[0]} channels: leave crop, flip and cutout alone"
            )
        if self.crop >= min(shape[1:]):
            raise ConfigError(
                f"{KEY}.crop={self.crop} moves images of {shape[1]} x {shape[2]} out of the frame: "
                f"use at most {min(shape[1:]) - 1}"
            )
        # from its farther corner a centre still leaves a pixel in sight
        if self.cutout >= 2 * max(shape[1:]):
            raise ConfigError(
                f"{KEY}.cutout={self.cutout} blanks all of images of {shape[1]} x {shape[2]}, "
                f"wherever it falls: use at most {max(shape[1:])}"
            )

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch with another view of each of its images."""
        self.check_shape(batch.x.shape[1:])
        mean = getattr(self.standardizer, "mean", None)
        # a pixel that has moved keeps its value, and a mean of its own stays where it was
        on_pixels = self.colours or (mean is not None and mean[0].numel() > 1)
        x, blank = batch.x, batch.x.new_zeros(())
        if on_pixels and mean is not None:
            x = self.standardizer.raw(x)
            blank = mean.mean((1, 2), keepdim=True).to(x)
        if self.colours:
            self.check_pixels(x)
        x = self.change_images(x, blank)
        if on_pixels and mean is not None:
            x = self.standardizer(x)
        return replace(batch, x=x)

    def change_images(self, x: Tensor, blank: Tensor) -> Tensor:
        """Draw and apply all that is asked for.

        Args:
            x: images [n, c, h, w].
            blank: the colour of what is not in the image, [c, 1, 1] or [].
        """
        # the same numbers a sample whatever is on: one more effect leaves the others as they were
        draws = torch.rand(8, len(x), dtype=torch.float64)
        if self.crop or self.flip:
            x = move_images(x, self.crop, draws[:3], self.flip, blank)
        if self.policy is not None:
            # no strength: one is drawn for each image
            count, strength = 1, None
            if self.policy == "randaugment":
                count, strength = self.operations, self.magnitude / STRENGTHS
            for _ in range(count):
                choices = torch.rand(3, len(x), dtype=torch.float64)
                x = apply_operations(x, self.policy, choices, strength, self.white, blank)
        for row, (name, spread) in enumerate(self.spreads.items(), 3):
            if spread:
                factors = 1 + spread * (2 * draws[row] - 1)
                x = blend_colours(x, name, factors.to(x), self.white)
        if self.cutout:
            x = cut_squares(x, self.cutout, draws[6:], blank)
        return x

    def check_pixels(self, x: Tensor) -> None:
        """Refuse, at the first batch, values that are in other units than ``white``.

        Args:
            x: images in their own units.

        Raises:
            ConfigError: some are not between black and white, or all are next to black.
        """
        if self._checked:  # a GPU is waited for here
            return
        low, high = map(float, x.aminmax())
        # images that are black all over tell of no units: the next batch is looked at, too
        self._checked = high > BLACK * self.white
        slack = 0.02 * self.white  # of rounding: bfloat16 keeps three digits
        dark = self._checked and high <= DARKEST * self.white
        if low < -slack or high > self.white + slack or dark:
            raise ConfigError(
                f"{KEY}.white={self.white:g}, but pixels lie between {low:.4g} and {high:.4g}: "
                "set it to the value of a white pixel, such as 255 for bytes or 1 for values "
                "up to 1, where black is 0, or leave colours and the policy out"
            )


def move_images(x: Tensor, most: int, draws: Tensor, flip: float, blank: Tensor) -> Tensor:
    """Cut a window of the same size out of each image, and mirror some.

    Args:
        x: images [n, c, h, w].
        most: pixels that a window is moved by at most.
        draws: uniform numbers [3, n]: down, sideways, and whether mirrored.
        flip: probability of a mirror image.
        blank: the colour of what lies outside.

    Returns:
        out[i, :, r, k] = x[i, :, r + d, k + e], with d, e from −most … most, each as likely; k
        counts from the right where the image is mirrored.
    """
    height, width = x.shape[2:]
    down, aside = (draws[:2] * (2 * most + 1)).long() - most
    # places alone are drawn here: one gather then does the crop and the mirror image both
    rows = torch.arange(height) + down[:, None]
    columns = torch.arange(width).expand(len(x), -1)
    columns = torch.where(draws[2, :, None] < flip, columns.flip(1), columns) + aside[:, None]
    return take_pixels(x, rows[:, :, None], columns[:, None, :], blank)


def cut_squares(x: Tensor, side: int, draws: Tensor, blank: Tensor) -> Tensor:
    """Blank a square of each image, with its centre at any pixel; what hangs over is cut off.

    Args:
        x: images [n, c, h, w].
        side: of the square, in pixels.
        draws: uniform numbers [2, n]: the centre's row and column.
        blank: the colour put there.
    """
    spans = []
    for length, place in zip(x.shape[2:], draws, strict=True):
        start = (place * length).long() - side // 2
        pixels = torch.arange(length) - start[:, None]
        spans.append((pixels >= 0) & (pixels < side))
    # cut off at the edge, not moved in: pixels there are blanked less often (their §3)
    inside = spans[0][:, None, :, None] & spans[1][:, None, None, :]
    return torch.where(inside.to(x.device), blank, x)
