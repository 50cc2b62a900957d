"""Directions in the space of the weights that are worth looking along."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.space import Space
from truerisk.core import rng


def filter_normalized(space: Space, w: Tensor, count: int = 2, seed: int = 0) -> Tensor:
    """Random directions [p, count] whose filters are as long as those of w.

    ``d_ij ← d_ij / ‖d_ij‖ · ‖w_ij‖`` for filter j of layer i, a row of a parameter of two or more
    dimensions (Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, §4): what
    is seen along them does not change when a layer is multiplied by a number and the next divided
    by it. Biases and the vectors of normalization layers stay, as in the authors' code. Where all
    parameters are vectors, each counts as one filter; one of length 0 counts as of length 1.

    Before they are scaled the directions are orthogonal.

    >>> w = torch.tensor([3.0, 4.0, 0.0, 0.0, 7.0])
    >>> d = filter_normalized(Space({"weight": torch.ones(2, 2), "bias": torch.ones(1)}), w)
    >>> d[:2].norm(dim=0), d[2:].abs().max()
    (tensor([5., 5.]), tensor(0.))
    """
    draw = rng.named_generator(seed, "directions")
    noise = torch.randn(space.size, count, generator=draw, dtype=torch.float64)
    noise = torch.linalg.qr(noise).Q.to(w)
    vectors = all(len(shape) < 2 for shape in space.shapes.values())
    parts = space.named(w).values()
    directions = [space.named(d).values() for d in noise.T]
    scaled = [[_scaled(d, p, vectors) for d, p in zip(ds, parts, strict=True)] for ds in directions]
    names = list(space.shapes)
    return torch.stack([space.flat(dict(zip(names, ds, strict=True))) for ds in scaled], 1)


def _scaled(d: Tensor, p: Tensor, vectors: bool) -> Tensor:
    """A direction for one parameter, in lengths of its filters."""
    if p.ndim < 2 and not vectors:
        return torch.zeros_like(d)
    rows, sizes = (t.reshape(len(p) if p.ndim > 1 else 1, -1) for t in (d, p))
    length = sizes.norm(dim=1, keepdim=True)
    if vectors:
        length = torch.where(length > 0, length, 1)
    size = rows.norm(dim=1, keepdim=True)
    return (rows / torch.where(size > 0, size, 1) * length).view_as(d)


class Principal(NamedTuple):
    """The principal directions of a path: unit vectors [p, 2], and their shares of its variance.

    ``at`` [n, 2] are the path's points along them, measured from its last one.
    """

    axes: Tensor
    at: Tensor
    share: Tensor


def principal_directions(path: Tensor) -> Principal:
    """The two directions in which the points [n, p] of a path vary most.

    The right singular vectors of the centred points, as in Li et al. (2018), §7, who draw the plane
    through the last point. A path on a line has a second direction of share 0. Directions point
    from the last point to the first.

    Raises:
        ValueError: fewer than two points, or only one weight.

    >>> found = principal_directions(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    >>> found.at[0].tolist(), found.share.tolist()
    ([2.0, 0.0], [1.0, 0.0])
    """
    if min(path.shape) < 2:
        raise ValueError(f"{path.shape[0]} points of {path.shape[1]} weights span no plane")
    points = path.double()
    sizes, vectors = torch.linalg.svd(points - points.mean(0), full_matrices=False)[1:]
    axes = vectors[:2].T
    at = (points - points[-1]) @ axes
    sign = torch.where(at[0] < 0, -1.0, 1.0).double()
    share = sizes.square() / sizes.square().sum().clamp(min=torch.finfo(torch.double).tiny)
    return Principal((axes * sign).to(path), (at * sign).to(path), share[:2])
