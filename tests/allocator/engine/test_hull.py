"""Hulls against a look at everything, and the C kernels against numpy."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from allocator.engine import _native, hull
from allocator.engine.hull import hull_moves

ENGINES = ["numpy", pytest.param("c", marks=pytest.mark.skipif(_native is None, reason="the extension was not built"))]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    monkeypatch.setenv("ALLOCATOR_ENGINE", request.param)
    return request.param


def draw(rng, most_groups=5, most_choices=5, kind=None):
    """Ragged groups with ties, dominated choices, points on one line, signs, far scales and forbidden choices."""
    sizes = rng.integers(1, most_choices + 1, rng.integers(1, most_groups + 1))
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    n = int(indptr[-1])
    cost = [
        rng.integers(0, 4, n), rng.integers(-50, 50, n), rng.integers(-(2**61) // n, 2**61 // n, n),
        rng.integers(0, 10**6, n),
    ][rng.integers(4)]  # fmt: skip
    value = [
        rng.integers(0, 4, n).astype(float), rng.normal(size=n), np.full(n, 2.5), rng.lognormal(0, 9, n),
        -3.0 * cost + rng.integers(0, 2, n), rng.random(n) * 1e-310, rng.random(n) * 1e290,
    ][rng.integers(7) if kind is None else kind]  # fmt: skip
    free = rng.random(n) < 0.8
    free[indptr[:-1]] |= ~np.logical_or.reduceat(free, indptr[:-1])
    return value, cost, indptr, free if rng.random() < 0.5 else None


def replay(h):
    """Every allocation on the walk."""
    now = h.base.copy()
    yield now.copy()
    for g, k in zip(h.group.tolist(), h.choice.tolist(), strict=True):
        now[g] = k
        yield now.copy()


def allocations(indptr, free, n):
    free = np.ones(n, bool) if free is None else free
    places = [[k for k in range(e - s) if free[s + k]] for s, e in itertools.pairwise(indptr.tolist())]
    return np.array(list(itertools.product(*places)))


@pytest.mark.parametrize("seed", range(150))
def test_every_step_is_optimal_for_its_own_cost(engine, seed):
    value, cost, indptr, free = draw(np.random.default_rng(seed))
    h = hull_moves(value, cost, indptr, free)
    rows = allocations(indptr, free, len(value)) + indptr[:-1]
    everything = sorted((sum(cost[r].tolist()), math.fsum(value[r].tolist())) for r in rows)
    uses = [c for c, _ in everything]
    best = list(itertools.accumulate((v for _, v in everything), min))
    size = np.maximum.reduceat(np.abs(value), indptr[:-1]).sum()
    for choice, total, worth in zip(replay(h), h.costs.tolist(), h.values.tolist(), strict=True):
        taken = indptr[:-1] + choice
        assert free is None or free[taken].all()
        assert total == sum(cost[taken].tolist())
        assert worth == pytest.approx(math.fsum(value[taken].tolist()), rel=0, abs=1e-15 * size)
        last = max(i for i, c in enumerate(uses) if c <= total)
        assert worth <= best[last] + 1e-14 * size
    assert h.costs[0] == uses[0]
    assert h.values[0] == pytest.approx(everything[0][1], rel=0, abs=1e-15 * size)  # of the cheapest, the best
    assert h.values[-1] == pytest.approx(best[-1], rel=0, abs=1e-15 * size)


@pytest.mark.parametrize("seed", range(150))
def test_no_vertex_is_missing(engine, seed):
    """For every price the walk holds a minimiser of value + price·cost, and each vertex is one for some price."""
    value, cost, indptr, free = draw(np.random.default_rng(seed), kind=seed % 2)
    h = hull_moves(value, cost, indptr, free)
    members = [(s, e) for s, e in itertools.pairwise(indptr.tolist())]
    walk = [{int(h.base[g])} | set(h.choice[h.group == g].tolist()) for g in range(len(h.base))]
    for g, (s, e) in enumerate(members):
        points = [
            (Fraction(int(cost[i])), Fraction(float(value[i])), i - s)
            for i in range(s, e) if free is None or free[i]
        ]  # fmt: skip
        kept = {k for c, v, k in points if not any(d <= c and w <= v and (d, w) != (c, v) for d, w, _ in points)}
        below = {
            k for c, v, k in points for (d, w, _), (f, x, _) in itertools.product(points, points)
            if d < c < f and v > w + (x - w) * (c - d) / (f - d) + Fraction(1, 10**13)
        }  # fmt: skip
        strictly = {
            k for c, v, k in points
            if k in kept and all(
                v < w + (x - w) * (c - d) / (f - d) for (d, w, _), (f, x, _) in itertools.product(points, points)
                if d < c < f
            )
        }  # fmt: skip
        places = {(int(cost[s + k]), float(value[s + k])) for k in walk[g]}
        assert {(int(cost[s + k]), float(value[s + k])) for k in strictly} <= places
        assert not walk[g] & below


@pytest.mark.parametrize("seed", range(200))
def test_slopes_fall_costs_rise_and_ties_stand_by_group(engine, seed):
    value, cost, indptr, free = draw(np.random.default_rng(seed), most_groups=30, most_choices=60)
    h = hull_moves(value, cost, indptr, free)
    assert (np.diff(h.costs) > 0).all()
    assert (np.diff(h.values) <= 0).all()
    order = list(zip((-h.slope).tolist(), h.group.tolist(), strict=True))
    assert order == sorted(order) or np.abs(value).max() < 1e-300  # there slopes as reported underflow
    assert (np.diff(h.slope) <= 0).all()
    for g in range(len(h.base)):  # edges of one group in order
        path = [int(h.base[g]), *h.choice[h.group == g].tolist()]
        assert (np.diff(cost[indptr[g] + np.array(path)]) > 0).all()


@pytest.mark.skipif(_native is None, reason="the extension was not built")
@pytest.mark.parametrize("seed", range(300))
def test_both_engines_give_the_same_bytes(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    groups, choices = [(5, 5), (400, 9), (3, 300)][seed % 3]
    instance = draw(rng, groups, choices)
    monkeypatch.setenv("ALLOCATOR_ENGINE", "c")
    one = hull_moves(*instance)
    monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy")
    other = hull_moves(*instance)
    for name in ("base", "group", "choice", "slope", "costs", "values"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes(), name


@pytest.mark.skipif(_native is None, reason="the extension was not built")
def test_both_engines_agree_where_one_bucket_holds_thousands(monkeypatch):
    """Slopes within a 32nd of an octave: several digits of the radix sort, and equal slopes among them."""
    rng = np.random.default_rng(1)
    cost = np.tile([0, 2**20], 20_000)
    value = np.zeros(40_000)
    value[::2] = 1 + rng.integers(0, 3000, 20_000) * 2.0**-40
    indptr = np.arange(0, 40_001, 2)
    results = []
    for engine in ("c", "numpy"):
        monkeypatch.setenv("ALLOCATOR_ENGINE", engine)
        results.append(hull_moves(value, cost, indptr))
    assert results[0].group.tobytes() == results[1].group.tobytes()
    assert 2000 < len(np.unique(results[0].slope)) < 3000


def test_equal_edges_on_a_line_all_stay(engine):
    """Four choices on one line: all are optimal for their own cost."""
    h = hull_moves(np.array([3.0, 2, 1, 0]), np.array([0, 1, 2, 3]), np.array([0, 4]))
    assert h.choice.tolist() == [1, 2, 3]
    assert h.values.tolist() == [3, 2, 1, 0]


def test_single_choices_have_no_moves(engine):
    h = hull_moves(np.array([1.5, -2.0]), np.array([-3, 7]), np.array([0, 1, 2]))
    assert (len(h.group), h.costs.tolist(), h.values.tolist()) == (0, [4], [-0.5])


def test_a_group_without_a_free_choice_is_named(engine):
    with pytest.raises(ValueError, match="group 1 has no choice"):
        hull_moves(np.zeros(4), np.arange(4), np.array([0, 2, 4]), np.array([True, True, False, False]))


def test_small_values_at_the_end_keep_their_digits(engine):
    """Summed from the large end, 1e20 would swallow what is left at the small end."""
    value = np.array([1e20, 3e-5, 2e20, 1e-5, 1e-5, 1e-7])
    h = hull_moves(value, np.array([0, 1, 0, 1, 0, 100]), np.array([0, 2, 4, 6]))
    assert h.values[-2:].tolist() == pytest.approx([5e-5, 4.01e-5], rel=1e-14)


def test_running_totals_are_right_over_many_blocks(engine, monkeypatch):
    monkeypatch.setattr(hull, "PAIRWISE", 64)
    rng = np.random.default_rng(5)
    value = rng.lognormal(0, 4, (1000, 4))
    h = hull_moves(value.ravel(), np.tile([1, 2, 3, 5], 1000), np.arange(0, 4001, 4))
    for i, choice in enumerate(replay(h)):
        if i % 97 == 0:
            assert h.values[i] == pytest.approx(math.fsum(value[np.arange(1000), choice].tolist()), rel=1e-14)
