"""Feasible allocations to search from: the caller's, a greedy one, and random ones repaired."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocator.bounds import find_prices
from allocator.local_search import improved, repaired
from allocator.protocols import Limits
from allocator.statement import IntArray
from solvers._ground import Ground
from solvers._population import Population

WALK = 400  # steps of the walk to feasibility, and as many again for each group
STRAY = 0.1  # share of its steps that go anywhere
LONGEST = 20_000
PRICED = 2


def beginnings(
    ground: Ground, start: IntArray | None, count: int, rng: np.random.Generator, limits: Limits
) -> IntArray:
    """Up to `count` different feasible allocations (rows [P, G]), the caller's or else the best greedy one first.

    Greedy ones are of least objective, with and without prices for the budgets, repaired where they break rows and
    then improved one group at a time, interactions left aside. Random ones are repaired under random values. What
    couplings or a limited loss then still break is mended by a random walk, for all at once. None at all where that
    fails too.
    """
    problem, linear = ground.problem, ground.linear
    guesses = [] if start is None else [problem.indptr[:-1] + start]
    for value in (linear.value, *(rng.random(problem.choice_count) for _ in range(count))):
        if limits.left <= 0 and guesses:
            break
        least = np.minimum.reduceat(np.where(linear.free, value, np.inf), problem.indptr[:-1])
        hits = np.flatnonzero(linear.free & (value == least[problem.group_of]))
        rows = hits[np.searchsorted(hits, problem.indptr[:-1])]
        kept = repaired(dataclasses.replace(linear, value=value), rows)
        if value is linear.value:
            guesses += _greedy(ground, [rows] if kept is None else [improved(linear, kept)])
        else:
            guesses.append(rows if kept is None else kept)
    guesses.append(ground.axis.cheapest)
    found: dict[bytes, IntArray] = {}
    broken = []
    for rows in guesses:
        if problem.evaluate(rows - problem.indptr[:-1]).feasible:
            found.setdefault(rows.tobytes(), rows)
        else:
            broken.append(rows)
    if broken and len(found) < count and len(ground.movable):
        for rows in _mended(ground, np.array(broken), rng, limits):
            if problem.evaluate(rows - problem.indptr[:-1]).feasible:
                found.setdefault(rows.tobytes(), rows)
    return np.array(list(found.values())[:count], np.int64).reshape(-1, problem.group_count)


def _greedy(ground: Ground, found: list[IntArray]) -> list[IntArray]:
    """With what the prices of the budgets choose, repaired and improved; the best first."""
    linear = ground.linear
    for seen in sorted(find_prices(linear).seen, key=lambda p: -p.bound)[:PRICED]:
        kept = repaired(linear, seen.rows)
        if kept is not None:
            found.append(improved(linear, kept))
    return sorted(found, key=lambda rows: float(linear.value[rows].sum()))


def _mended(ground: Ground, rows: IntArray, rng: np.random.Generator, limits: Limits) -> IntArray:
    """Those that become feasible by giving a random group, again and again, its choice of least excess."""
    walkers = Population(ground, rows)
    done: list[IntArray] = []
    for _ in range(min(WALK * (1 + len(rows[0])), LONGEST)):
        fine = walkers.excess() == 0
        if fine.any():
            done += list(walkers.rows[fine])
            walkers = walkers.take(np.flatnonzero(~fine))
        if not len(walkers) or limits.left <= 0:
            break
        groups = ground.movable[rng.integers(len(ground.movable), size=len(walkers))]
        members = np.arange(len(walkers))
        candidates, excess, _ = walkers.candidates(members, groups)
        chance = rng.random(excess.shape)
        astray = rng.random(len(walkers)) < STRAY
        excess = np.where(astray[:, None] & np.isfinite(excess), 0.0, excess)
        place = np.lexsort((chance, excess), axis=1)[:, 0]
        walkers.change(members, groups, candidates[members, place])
    return np.array(done, np.int64).reshape(-1, rows.shape[1])
