"""Checks a cover by cases: in each, what the couplings exclude is derived anew, and the core search finds nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from allocator.certificate import ByLabel, ByRow, Case, Cases, Leaf
from allocator.checks.core import exhaust
from allocator.checks.lagrangian import proves_infeasible, single_row_infeasible
from allocator.couplings import propagate
from allocator.linear import Linear
from allocator.statement import BoolArray, MaxDistinct

MOST_STATES = 20_000_000


@dataclass
class _Budget:
    states: int


@dataclass(frozen=True)
class _Restriction:
    free: BoolArray
    used: dict[int, frozenset[int]] = field(default_factory=dict)


def check_cases(linear: Linear, cases: Cases, total: float, tolerance: float) -> bool:
    """Whether no allocation that keeps every row and coupling has Σ value < total − tolerance.

    total: +∞ asks whether there is any allocation at all.
    """
    left = _Budget(MOST_STATES)
    waiting: list[tuple[Case, _Restriction]] = [(cases.root, _Restriction(linear.free))]
    while waiting:
        case, given = waiting.pop()
        if not _legible(linear, case):
            return False
        free = propagate(linear.problem, given.free, given.used)
        if free is None:
            continue
        given = dataclasses.replace(given, free=free)
        if isinstance(case, ByRow):
            waiting += _by_row(linear, case, given)
        elif isinstance(case, ByLabel):
            waiting += _by_label(linear, case, given)
        elif not _nothing_better(dataclasses.replace(linear, free=free), case.values, total, tolerance, left):
            return False
    return True


def _legible(linear: Linear, case: Case) -> bool:
    """Whether a case speaks of rows, couplings and labels that there are, and its prices are numbers."""
    problem = linear.problem
    if isinstance(case, ByRow):
        return 0 <= case.row < problem.choice_count
    if isinstance(case, ByLabel):
        known = 0 <= case.coupling < len(problem.couplings) and 0 <= case.code < len(problem.label_codes.table)
        return known and isinstance(problem.couplings[case.coupling], MaxDistinct)
    return isinstance(case, Leaf) and all(isinstance(v, float | int) for v in case.values)


def _by_row(linear: Linear, case: ByRow, given: _Restriction) -> list[tuple[Case, _Restriction]]:
    group = linear.problem.group_of[case.row]
    taken, other = given.free & (linear.problem.group_of != group), given.free.copy()
    taken[case.row] = given.free[case.row]
    other[case.row] = False
    return [(case.taken, _Restriction(taken, given.used)), (case.other, _Restriction(other, given.used))]


def _by_label(linear: Linear, case: ByLabel, given: _Restriction) -> list[tuple[Case, _Restriction]]:
    coupling = linear.problem.couplings[case.coupling]
    assert isinstance(coupling, MaxDistinct)
    codes = linear.problem.label_codes
    inside = np.isin(linear.problem.group_of, np.array(coupling.groups)) & (codes.code == case.code)
    ignored = codes.table[case.code] in coupling.ignore
    known = given.used.get(case.coupling, frozenset())
    more = known if ignored else known | {case.code}  # an ignored label counts for nothing
    return [
        (case.used, _Restriction(given.free, {**given.used, case.coupling: more})),
        (case.unused, _Restriction(given.free & ~inside, given.used)),
    ]


def _nothing_better(linear: Linear, values: tuple[float, ...], total: float, tolerance: float, left: _Budget) -> bool:
    if single_row_infeasible(linear) is not None or proves_infeasible(linear, values):
        return True
    if not np.isfinite(total) or left.states <= 0:
        return False
    found = exhaust(linear, values, total, tolerance, left.states)
    left.states -= found.states
    return found.proved
