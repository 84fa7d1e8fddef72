"""Graphs of groups that are chains."""

from __future__ import annotations

import numpy as np

from allocator.statement import BoolArray, IntArray


def chains(one: IntArray, other: IntArray, count: int) -> tuple[IntArray, BoolArray] | None:
    """All groups, chain after chain [G], and which of them are joined with the next [G − 1].

    None where the edges one–other do not form chains: a group with three neighbours, or a ring.
    """
    ends, others = np.concatenate([one, other]), np.concatenate([other, one])
    degree = np.bincount(ends, minlength=count)
    if (degree > 2).any():
        return None
    near = np.full((count, 2), -1, np.int64)
    order = np.argsort(ends, kind="stable")
    first = np.cumsum(degree) - degree
    near[ends[order], np.arange(len(order)) - first[ends[order]]] = others[order]
    beside: list[list[int]] = near.tolist()
    placed = [False] * count
    groups: list[int] = []
    joined: list[bool] = []
    for end in np.flatnonzero(degree < 2).tolist():
        now, before = end, -1
        if placed[end]:
            continue
        while now >= 0:
            placed[now] = True
            groups.append(now)
            a, b = beside[now]
            now, before = (b if a == before else a), now
            joined.append(now >= 0)
    if len(groups) < count:
        return None  # a ring has no end
    return np.array(groups, np.int64), np.array(joined[:-1], bool)


def distinct(key: IntArray) -> IntArray:
    """The different values, ascending: np.unique alone imports numpy.ma at its first call, 10 ms."""
    return np.asarray(np.unique(key, return_counts=True)[0])
