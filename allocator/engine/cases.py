"""Couplings between groups on top of the separable engine: best-first search over cases.

Each case forbids rows; its own optimum without the couplings, found exactly, is a lower bound. The case of the
lowest bound is looked at first: where its allocation keeps every coupling it is the optimum, else a broken
coupling is split into two cases that cover it.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from allocator.certificate import ByLabel, ByRow, Case, Cases, Leaf
from allocator.couplings import propagate
from allocator.engine.separable import Separated
from allocator.linear import Linear
from allocator.problem import Problem
from allocator.statement import BoolArray, Cardinality, Implies, IntArray, MaxDistinct

MOST_CASES = 2_000

Oracle = Callable[[Linear], Separated]


@dataclass(eq=False)
class _Open:
    """A case: rows still free, labels that must occur, its optimum without couplings, and how it was split."""

    free: BoolArray
    used: dict[int, tuple[int, ...]]
    found: Separated | None = None
    split: tuple[ByRow | ByLabel, _Open, _Open] | None = None

    def written(self) -> Case:
        """As a part of the certificate; without recursion, for a cover may be as deep as it has cases."""
        order: list[_Open] = [self]
        for case in order:
            order += case.split[1:] if case.split is not None else ()
        done: dict[int, Case] = {}
        for case in reversed(order):
            if case.split is None:
                done[id(case)] = Leaf(case.found.prices if case.found is not None else ())
                continue
            kind, first, second = (case.split[0], *(done[id(c)] for c in case.split[1:]))
            if isinstance(kind, ByRow):
                done[id(case)] = ByRow(kind.row, first, second)
            else:
                done[id(case)] = ByLabel(kind.coupling, kind.code, first, second)
        return done[id(self)]


@dataclass(eq=False)
class Covered:
    """rows: the best allocation [G] found, total its Σ value; bound: no allocation's is below it.

    closed: proved optimal, or infeasible where rows is None. limit: "time" or "cases" where it is not.
    """

    rows: IntArray | None = None
    total: float = math.inf
    bound: float = -math.inf
    closed: bool = False
    limit: str | None = None
    certificate: Cases | None = None
    prices: tuple[float, ...] = ()
    cases: int = 0
    lowest: float = math.inf  # bound of the cases that are done with
    _heap: list[tuple[float, int, _Open]] = field(default_factory=list)


def solve_cases(
    linear: Linear, oracle: Oracle, tolerance: float, left: Callable[[], float], most_cases: int = MOST_CASES
) -> Covered:
    """Least Σ value within every row and coupling.

    Args:
        linear: the separable view; its problem holds the couplings (same_choice merged before).
        oracle: solves a separable view exactly, couplings left out.
        tolerance: gains up to it may be left alone.
        left: seconds left.
        most_cases: cases looked at before giving up.
    """
    problem = linear.problem
    out = Covered()
    root = _Open(linear.free, {})
    _look(problem, linear, oracle, root, out)
    while out._heap:
        bound, _, case = out._heap[0]
        if bound >= out.total - tolerance:
            break
        if out.cases >= most_cases or left() <= 0 or out.limit is not None:
            out.limit = out.limit or ("time" if left() <= 0 else "cases")
            out.bound = min(bound, out.total, out.lowest)
            return out
        heapq.heappop(out._heap)
        assert case.found is not None
        assert case.found.rows is not None
        kind, first, second = _split(problem, case, case.found.rows)
        case.split = (kind, first, second)
        for child in (first, second):
            _look(problem, linear, oracle, child, out)
    out.bound = min([out.total, out.lowest, *(bound for bound, _, _ in out._heap[:1])])
    if out.limit is None:
        out.closed = True
        out.certificate = Cases(root.written(), root.found.prices if root.found is not None else ())
    return out


def _look(problem: Problem, linear: Linear, oracle: Oracle, case: _Open, out: Covered) -> None:
    free = propagate(problem, case.free, case.used)
    if free is None:
        return
    case.free = free
    out.cases += 1
    found = case.found = oracle(dataclasses.replace(linear, free=free))
    out.prices = out.prices or found.prices
    if found.limit is not None:
        out.limit = found.limit
    if found.rows is None:
        out.lowest = out.lowest if found.limit is None else -math.inf
        return
    broken = _broken(problem, found.rows) is not None
    if not broken:
        out.lowest = min(out.lowest, found.bound)
    if not broken and found.total < out.total:
        out.rows, out.total, out.prices = found.rows, found.total, found.prices
    if broken or found.limit is not None:
        heapq.heappush(out._heap, (found.bound, out.cases, case))


def _broken(problem: Problem, rows: IntArray) -> int | None:
    """Number of the first coupling that an allocation breaks."""
    taken = set(rows.tolist())
    codes = problem.label_codes
    for i, coupling in enumerate(problem.couplings):
        if isinstance(coupling, Implies):
            broken = coupling.if_row in taken and coupling.then_row not in taken
        elif isinstance(coupling, Cardinality):
            count = sum(r in taken for r in coupling.rows)
            broken = {"at_most": count > coupling.count, "at_least": count < coupling.count}.get(
                coupling.kind, count != coupling.count
            )
        elif isinstance(coupling, MaxDistinct):
            labels = {codes.table[c] for c in codes.code[rows[list(coupling.groups)]].tolist()} - coupling.ignore
            broken = len(labels) > coupling.count
        else:
            broken = False
        if broken:
            return i
    return None


def _split(problem: Problem, case: _Open, rows: IntArray) -> tuple[ByRow | ByLabel, _Open, _Open]:
    """Two cases that cover this one, neither of which contains the allocation at hand."""
    i = _broken(problem, rows)
    assert i is not None  # an allocation that keeps every coupling ends the search
    coupling = problem.couplings[i]
    if isinstance(coupling, MaxDistinct):
        codes = problem.label_codes.code[rows[list(coupling.groups)]]
        known = case.used.get(i, ())
        counts = {
            c: n
            for c, n in zip(*(a.tolist() for a in np.unique(codes, return_counts=True)), strict=True)
            if problem.label_codes.table[c] not in coupling.ignore and c not in known
        }
        code = max(counts, key=lambda c: (counts[c], -c))
        inside = np.isin(problem.group_of, np.array(coupling.groups)) & (problem.label_codes.code == code)
        used = _Open(case.free, {**case.used, i: (*known, code)})
        unused = _Open(case.free & ~inside, case.used)
        return ByLabel(i, code, Leaf(()), Leaf(())), used, unused
    if isinstance(coupling, Implies):
        return _by_row(problem, case, coupling.if_row)
    assert isinstance(coupling, Cardinality)
    listed = np.array(coupling.rows)
    here = np.isin(listed, rows)
    candidates = listed[here] if here.sum() > coupling.count else listed[~here]
    sizes = np.add.reduceat(case.free.astype(np.int64), problem.indptr[:-1])
    undecided = [r for r in candidates.tolist() if case.free[r] and sizes[problem.group_of[r]] > 1]
    return _by_row(problem, case, undecided[0])


def _by_row(problem: Problem, case: _Open, row: int) -> tuple[ByRow | ByLabel, _Open, _Open]:
    group = int(problem.group_of[row])
    taken, other = case.free.copy(), case.free.copy()
    taken[problem.indptr[group] : problem.indptr[group + 1]] = False
    taken[row] = True
    other[row] = False
    return ByRow(row, Leaf(()), Leaf(())), _Open(taken, case.used), _Open(other, case.used)
