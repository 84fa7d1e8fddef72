"""Groups in a chain under one integer budget: the optimum by a table over (choice, budget used)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray


def chains(joined: Mapping[tuple[int, int], FloatArray], groups: int) -> list[int] | None:
    """All groups, chain after chain, so that joined ones are neighbours; None where they do not form chains."""
    near: dict[int, list[int]] = {g: [] for g in range(groups)}
    for g, h in joined:
        near[g].append(h)
        near[h].append(g)
    if any(len(n) > 2 for n in near.values()):
        return None
    order: list[int] = []
    placed = [False] * groups
    for end in (g for g in range(groups) if len(near[g]) < 2):
        now: int | None = end
        while now is not None and not placed[now]:
            placed[now] = True
            order.append(now)
            now = next((h for h in near[now] if not placed[h]), None)
    return order if len(order) == groups else None  # a ring has no end


def cheapest_chain(
    order: Sequence[int],
    rows: Sequence[IntArray],
    unary: FloatArray,
    use: IntArray,
    joined: Mapping[tuple[int, int], FloatArray],
    budget: int,
    limits: Limits,
) -> IntArray | None:
    """The rows [G] of least Σ unary + Σ joined with Σ use ≤ budget; None where nothing keeps it, or time is over.

    Args:
        order: groups, joined ones next to each other.
        rows: of each group, those that may be taken.
        unary: of each row [N]. use: of each row [N], ≥ 0.
        joined: (g, h), g < h → values [size of g, size of h].
        budget: ≥ 0. Memory is 8·N·(budget + 1) bytes, time Σ size·size'·(budget + 1).
    """
    layers: list[FloatArray] = []
    for i, g in enumerate(order):
        if limits.left <= 0:
            return None
        layer = np.full((len(rows[g]), budget + 1), np.inf)
        between = _table(joined, order[i - 1], g) if i else None
        shared = layers[-1].min(axis=0) if i and between is None else None
        for k, row in enumerate(rows[g].tolist()):
            spent = int(use[row])
            if spent > budget:
                continue
            if not i:
                layer[k, spent:] = unary[row]
                continue
            before = layers[-1][:, : budget + 1 - spent]
            if between is None:
                assert shared is not None
                best = shared[: budget + 1 - spent]
            else:
                best = (before + between[:, k, None]).min(axis=0)
            layer[k, spent:] = best + unary[row]
        layers.append(layer)
    if not np.isfinite(layers[-1][:, budget]).any():
        return None
    taken = np.zeros(len(order), np.int64)
    place, left = int(layers[-1][:, budget].argmin()), budget
    for i in range(len(order) - 1, -1, -1):
        g = order[i]
        taken[g] = rows[g][place]
        left -= int(use[taken[g]])
        if i:
            between = _table(joined, order[i - 1], g)
            before = layers[i - 1][:, left]
            place = int((before if between is None else before + between[:, place]).argmin())
    return taken


def _table(joined: Mapping[tuple[int, int], FloatArray], g: int, h: int) -> FloatArray | None:
    """Values [size of g, size of h], or None where the two are not joined."""
    return joined[g, h] if (g, h) in joined else joined[h, g].T if (h, g) in joined else None
