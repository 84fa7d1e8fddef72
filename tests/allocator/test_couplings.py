"""What couplings rule out: never a row that some allocation keeping them takes."""

from __future__ import annotations

from random import Random

import numpy as np

from allocator.couplings import propagate
from allocator.problem import Problem
from allocator.statement import MaxDistinct
from allocator.testing.depth import times
from allocator.testing.random_problems import random_rows
from allocator.testing.reference import Reference

PARTS = frozenset({"max_distinct", "cardinality", "implies", "labels", "forbidden", "pins"})


def coupled(count):
    """Random problems with couplings (without budgets), a part of the free rows, and labels that are to occur."""
    seed = 0
    while count:
        seed += 1
        rows = random_rows(seed, PARTS, most_allocations=120)
        if not rows["couplings"]:
            continue
        count -= 1
        rows["budgets"] = []
        rng, problem = Random(seed), Problem.from_rows(rows)
        free = problem.free & np.array([rng.random() < 0.85 for _ in range(problem.choice_count)])
        used = {}
        codes = problem.label_codes
        for i, coupling in enumerate(problem.couplings):
            if isinstance(coupling, MaxDistinct) and rng.random() < 0.5:
                there = codes.code[np.isin(problem.group_of, coupling.groups)].tolist()
                counted = sorted(c for c in set(there) if codes.table[c] not in coupling.ignore)
                used[i] = tuple(rng.sample(counted, min(len(counted), rng.randint(1, 2))))
        yield seed, Reference(rows), problem, free, used


def kept(reference, problem, free, used):
    """Rows of every allocation that keeps everything."""
    for places in reference.allocations():
        rows = problem.indptr[:-1] + np.array(places)
        if not free[rows].all() or not all(reference._kept(places, c) for c in reference.rows["couplings"]):
            continue
        codes = problem.label_codes.code[rows]
        if all(set(labels) <= set(codes[list(problem.couplings[i].groups)].tolist()) for i, labels in used.items()):
            yield rows


def test_never_excludes_what_an_allocation_takes():
    excluded = closed = 0
    for seed, reference, problem, free, used in coupled(times(400)):
        given = free.copy()
        left = propagate(problem, free, used)
        assert np.array_equal(free, given)
        for rows in kept(reference, problem, free, used):
            assert left is not None, seed
            assert left[rows].all(), seed
        if left is None:
            closed += 1
            continue
        excluded += int(free.sum() - left.sum())
        assert not (left & ~free).any(), seed
        again = propagate(problem, left, used)
        assert again is not None
        assert np.array_equal(again, left), seed
    assert excluded > times(60)
    assert closed > times(30)


def test_what_is_left_of_one_choice_per_group_is_kept():
    """Where everything is decided, propagation decides: nothing is left, or the couplings are kept."""
    decided = 0
    for seed, reference, problem, _, _ in coupled(times(150)):
        rng = Random(seed)
        places = tuple(rng.randrange(n) for n in np.diff(problem.indptr).tolist())
        free = np.zeros(problem.choice_count, bool)
        free[problem.indptr[:-1] + np.array(places)] = True
        good = all(reference._kept(places, c) for c in reference.rows["couplings"])
        assert (propagate(problem, free, {}) is not None) == good, seed
        decided += good
    assert decided > times(20)


def rows_of(couplings, groups=3, choices="ab"):
    return Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "groups": [
                {"name": f"g{g}", "choices": [{"name": c, "cost": {"r": 1}, "score": {"s": 0.0}} for c in choices]}
                for g in range(groups)
            ],
            "couplings": couplings,
        }
    )


def test_a_chain_of_implications_is_followed_to_its_end():
    chain = [{"kind": "implies", "if": [f"g{g}", "a"], "then": [f"g{g + 1}", "a"]} for g in range(4)]
    problem = rows_of(chain, 5)
    free = problem.free.copy()
    free[1] = False  # g0 takes a
    assert propagate(problem, free, {}).tolist() == [True, False] * 5
    free = problem.free.copy()
    free[8] = False  # g4 cannot take a
    assert propagate(problem, free, {}).tolist() == [False, True] * 5


def test_as_many_labels_as_are_allowed_close_the_rest():
    problem = rows_of([{"kind": "max_distinct", "count": 1}])
    a = problem.label_codes.table.index("a")
    assert propagate(problem, problem.free, {0: (a,)}).tolist() == [True, False] * 3
    b = problem.label_codes.table.index("b")
    assert propagate(problem, problem.free, {0: (a, b)}) is None


def test_exactly_as_many_as_can_be_are_taken():
    listed = [[f"g{g}", "a"] for g in range(3)]
    problem = rows_of([{"kind": "exactly", "choices": listed, "count": 3}])
    assert propagate(problem, problem.free, {}).tolist() == [True, False] * 3
    problem = rows_of([{"kind": "exactly", "choices": listed, "count": 0}])
    assert propagate(problem, problem.free, {}).tolist() == [False, True] * 3
    problem = rows_of([{"kind": "at_least", "choices": listed, "count": 4}])
    assert propagate(problem, problem.free, {}) is None
