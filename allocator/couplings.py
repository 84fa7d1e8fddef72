"""What couplings rule out once some choices are ruled out: used by the search, and by the checker of `cases`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from allocator.problem import Problem
from allocator.statement import BoolArray, Cardinality, Coupling, Implies, MaxDistinct


def propagate(problem: Problem, free: BoolArray, used: Mapping[int, Collection[int]]) -> BoolArray | None:
    """Rows that may still be taken [N]: `free` less what the couplings then exclude; None where nothing is left.

    Args:
        problem: with max_distinct, implies and cardinality couplings (same_choice is merged before).
        free: rows that may be taken.
        used: for max_distinct couplings, by their number, label codes that are to occur in their groups.
    """
    free = free.copy()
    while True:
        before = int(free.sum())
        for i, coupling in enumerate(problem.couplings):
            if not _excluded(problem, free, coupling, used.get(i, ())):
                return None
        if not np.logical_or.reduceat(free, problem.indptr[:-1]).all():
            return None
        if int(free.sum()) == before:
            return free


def _excluded(problem: Problem, free: BoolArray, coupling: Coupling, used: Collection[int]) -> bool:
    """Take out of `free` what one coupling excludes; False where it cannot be kept."""
    if isinstance(coupling, Implies):
        if not free[coupling.then_row]:
            free[coupling.if_row] = False
        if _forced(problem, free, coupling.if_row):
            _fix(problem, free, coupling.then_row)
        return True
    if isinstance(coupling, Cardinality):
        rows = np.array(coupling.rows)
        forced = np.array([_forced(problem, free, r) for r in coupling.rows])
        groups = problem.group_of[rows]
        open_groups = len(np.unique(groups[free[rows]]))
        if coupling.kind != "at_least":
            if forced.sum() > coupling.count:
                return False
            if forced.sum() == coupling.count:
                free[rows[~forced]] = False
        if coupling.kind != "at_most":
            if open_groups < coupling.count:
                return False
            if open_groups == coupling.count:
                for group in np.unique(groups[free[rows]]).tolist():
                    inside = slice(int(problem.indptr[group]), int(problem.indptr[group + 1]))
                    listed = np.zeros(problem.choice_count, bool)
                    listed[rows] = True
                    free[inside] &= listed[inside]
        return True
    if isinstance(coupling, MaxDistinct):
        return _labels_within(problem, free, coupling, used)
    return True


def _labels_within(problem: Problem, free: BoolArray, coupling: MaxDistinct, used: Collection[int]) -> bool:
    codes = problem.label_codes
    inside = np.isin(problem.group_of, np.array(coupling.groups))
    ignored = np.isin(codes.code, [c for c, text in enumerate(codes.table) if text in coupling.ignore])
    counted = inside & ~ignored
    left = np.add.reduceat(free.astype(np.int64), problem.indptr[:-1])
    sure = set(codes.code[free & counted & (left == 1)[problem.group_of]].tolist()) | set(used)
    if len(sure) > coupling.count:
        return False
    if len(sure) == coupling.count:
        free[counted & ~np.isin(codes.code, list(sure))] = False
    return True


def _forced(problem: Problem, free: BoolArray, row: int) -> bool:
    group = int(problem.group_of[row])
    inside = free[problem.indptr[group] : problem.indptr[group + 1]]
    return bool(free[row]) and int(inside.sum()) == 1


def _fix(problem: Problem, free: BoolArray, row: int) -> None:
    group = int(problem.group_of[row])
    kept = bool(free[row])
    free[problem.indptr[group] : problem.indptr[group + 1]] = False
    free[row] = kept
