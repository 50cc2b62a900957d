"""Shift and scale of the inputs, as the training split has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest

KINDS = ("none", "feature", "channel", "global")


def check_kind(kind: str) -> str:
    """Return the kind, if there is such a standardization.

    Raises:
        ConfigError: there is none of that name.
    """
    if kind not in KINDS:
        hint = suggest(str(kind), KINDS)
        raise ConfigError(f"data.standardize is '{kind}': {hint} (one of {', '.join(KINDS)})")
    return kind


def _shared_axes(kind: str, ndim: int) -> tuple[int, ...]:
    """Return the axes of a stack of samples that share one mean and one scale."""
    if kind == "global":
        return tuple(range(ndim))
    if kind == "feature":
        return (0,)
    return (0, *range(2, ndim))


class Standardizer:
    """x ↦ (x − mean) / scale, with one mean and scale a feature, a channel, or for all numbers.

    The scale is the standard deviation √(1/N Σ (x − mean)²), or 1 where x is constant. A sample of
    shape (d,) has its features for channels. Without a mean it leaves x as it is.

    Args:
        mean: broadcast against samples; None for none.
        scale: likewise.

    >>> fitted = Standardizer.fit("feature", [torch.tensor([[0.0, 5.0], [2.0, 5.0]])])
    >>> fitted(torch.tensor([[3.0, 6.0]]))
    tensor([[2., 1.]])
    >>> fitted.raw(torch.tensor([[2.0, 1.0]]))
    tensor([[3., 6.]])
    """

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None) -> None:
        self.mean, self.scale = mean, scale

    @classmethod
    def fit(cls, kind: str, chunks: Iterable[Tensor]) -> Standardizer:
        """Fit on chunks [n, *shape] of the training inputs, read once.

        Means and squared deviations of the chunks are merged in float64 (Chan, Golub & LeVeque
        1983, Algorithms for computing the sample variance, eq. 2.1).

        Args:
            kind: ``none``, ``feature``, ``channel`` or ``global``.
            chunks: of the training inputs; what their sizes are decides the last bits.

        Raises:
            ConfigError: there is no such kind.
        """
        if check_kind(kind) == "none":
            return cls()
        count, mean, squares = 0.0, torch.zeros(()), torch.zeros(())
        # mapped, as a loop would hold one chunk while the next is made
        for n, chunk_mean, variance in map(partial(_summarize_chunk, kind), chunks):
            delta = chunk_mean - mean
            squares = squares + variance * n
            squares = squares + delta.square() * (count * n / (count + n))
            mean, count = mean + delta * (n / (count + n)), count + n
        return cls(mean, _find_scale(squares / count, mean))

    def __call__(self, x: Tensor) -> Tensor:
        """Standardize x [n, *shape]."""
        if self.mean is None or self.scale is None:
            return x
        shifted = x - self.mean.to(x)
        if not shifted.is_floating_point():
            return shifted / self.scale.to(x)
        return shifted.div_(self.scale.to(x))  # in place, as data may fill the memory

    def raw(self, x: Tensor) -> Tensor:
        """Undo it: x ↦ x · scale + mean."""
        if self.mean is None or self.scale is None:
            return x
        return x * self.scale.to(x) + self.mean.to(x)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the mean and the scale, if fitted."""
        if self.mean is None or self.scale is None:
            return {}
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Standardizer:
        """Restore the standardizer whose `state_dict` was kept."""
        return cls(state.get("mean"), state.get("scale"))


def _summarize_chunk(kind: str, chunk: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return how many numbers a mean is over, the means, and the variances, in float64."""
    axes, wide = _shared_axes(kind, chunk.ndim), chunk.to("cpu", torch.float64)
    mean = wide.mean(axes, keepdim=True)[0]
    return wide.numel() / mean.numel(), mean, wide.var(axes, correction=0, keepdim=True)[0]


def _find_scale(variance: Tensor, mean: Tensor) -> Tensor:
    """Return √variance, or 1 where it is only the rounding error of a constant."""
    std = variance.sqrt()
    # the mean of equal numbers is rounded, so their deviation need not be 0
    constant = std <= 10 * torch.finfo(torch.float64).eps * mean.abs()
    return torch.where(constant, torch.ones_like(std), std)
