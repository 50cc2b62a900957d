"""Four independent streams of randomness from one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Streams(NamedTuple):
    """Seeds below 2**32 (all that NumPy's legacy generators take), one for each kind of draw."""

    init: int
    """initial weights"""
    data: int
    """splits, label noise, generated samples"""
    order: int
    """order of the mini-batches"""
    noise: int
    """dropout, mixup and other noise while training"""


def mix_bits(base: int, stream: int) -> int:
    """Derive a well-spread number of 32 bits, the same on every machine and in every version.

    The upper half of output number ``stream`` of SplitMix64 (Steele, Lea & Flood 2014, figure 17)
    started at ``base``: neighbouring bases give unrelated streams.

    Args:
        base: a seed.
        stream: which of its numbers, from 0.

    >>> mix_bits(1234567, 0) == 6457827717110365317 >> 32
    True
    """
    bits = (1 << 64) - 1
    z = (base + (stream + 1) * 0x9E3779B97F4A7C15) & bits
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
    return (z ^ (z >> 31)) >> 32


def derive_streams(seed: int | Mapping[str, int | None]) -> Streams:
    """Derive the streams of a base number, or of a mapping with ``base`` and streams set by hand.

    A stream set by hand is used as it is, so that recipes can be compared on the same draws.

    >>> streams = derive_streams({"base": 3, "order": 7})
    >>> streams.order, streams == derive_streams(3)._replace(order=7)
    (7, True)
    """
    options: Mapping[str, int | None] = {"base": seed} if isinstance(seed, int) else seed
    base = options.get("base") or 0
    derived = {name: mix_bits(base, i) for i, name in enumerate(Streams._fields)}
    chosen = {k: v for k in Streams._fields if (v := options.get(k)) is not None}
    return Streams(**derived | chosen)
