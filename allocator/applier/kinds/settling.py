"""Sizes and signs of the channels between parts of a weight: they are free, and are put where rounding costs least."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def settled(parts: Sequence[Array], norm: float, depthwise: bool) -> list[Array]:
    """The same product times ``norm``, with the freedom between the parts used: sizes are even, signs fixed.

    What a channel is multiplied by in one part and divided by in the next is free. In each its size becomes the same,
    so that none is lost beside a larger one when they are rounded with one scale; its largest entry in the part behind
    becomes positive. Then all parts get the same norm.
    """
    parts = _even_components(parts) if depthwise else _even_chain(parts)
    sizes = [float(np.linalg.norm(part)) for part in parts]
    if not all(sizes):
        return [np.zeros_like(part) for part in parts]
    each = math.exp((math.log(norm) + sum(map(math.log, sizes))) / len(parts))
    return [part * (each / size) for part, size in zip(parts, sizes, strict=True)]


def _even_chain(parts: Sequence[Array]) -> list[Array]:
    """A channel is a row of one part and columns of the next: evened out from the outputs back."""
    found = list(parts)
    for behind in range(len(found) - 1, 0, -1):
        before, part = found[behind - 1], found[behind]
        entries = part.reshape(len(part), len(before), -1)
        size, given = np.sqrt((entries**2).sum((0, 2))), np.linalg.norm(before, axis=1)
        factor = np.sqrt(_divided(given, size)) * _signs(entries.swapaxes(0, 1).reshape(len(before), -1))
        found[behind] = (entries * factor[:, None]).reshape(part.shape)
        found[behind - 1] = before / factor[:, None]
    return found


def _even_components(parts: Sequence[Array]) -> list[Array]:
    """A channel is a row of every part but the last, of which it is a column."""
    found = [*parts[:-1], parts[-1].T]
    sizes = [np.linalg.norm(part, axis=1) for part in found]
    even = np.prod(sizes, 0) ** (1 / len(found))
    signs = [_signs(part) for part in found[1:]]
    factors = [np.prod(signs, 0), *signs]
    found = [part * (f * _divided(even, size))[:, None] for part, f, size in zip(found, factors, sizes, strict=True)]
    return [*found[:-1], found[-1].T]


def _divided(by: Array, size: Array) -> Array:
    """by/size, 1 where either is 0: what is nothing stays as it is."""
    return np.asarray(np.divide(by, size, out=np.ones_like(by), where=(size > 0) & (by > 0)), np.float64)


def _signs(rows: Array) -> Array:
    """The sign of each row's largest entry, 1 for that of zeros."""
    return np.where(np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)[:, 0] < 0, -1.0, 1.0)
