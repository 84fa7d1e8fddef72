"""Which single changes of an allocation keep a coupling: one group takes another choice, all others stay."""

from __future__ import annotations

import numpy as np

from allocator.problem import Problem
from allocator.statement import BoolArray, Cardinality, Coupling, Implies, IntArray, MaxDistinct, SameChoice


def keeps(problem: Problem, rows: IntArray, coupling: Coupling) -> BoolArray:
    """Whether the coupling holds after each change [N]; at the rows that are taken: whether it holds now.

    Args:
        problem: any problem.
        rows: the taken rows [G].
        coupling: one of the problem's.
    """
    if isinstance(coupling, Implies):
        return _implies(problem, rows, coupling)
    if isinstance(coupling, Cardinality):
        return _cardinality(problem, rows, coupling)
    groups = np.array(coupling.groups)
    codes = problem.label_codes
    ignored = coupling.ignore if isinstance(coupling, MaxDistinct) else frozenset()
    counted = np.array([text not in ignored for text in codes.table])
    taken = codes.code[rows[groups]]
    uses = np.bincount(taken[counted[taken]], minlength=len(codes.table))
    distinct = int((uses > 0).sum())
    most = 1 if isinstance(coupling, SameChoice) else coupling.count
    inside = np.zeros(problem.group_count, bool)
    inside[groups] = True
    kept = np.full(problem.choice_count, distinct <= most)
    touched = np.flatnonzero(inside[problem.group_of])
    old, new = codes.code[rows[problem.group_of[touched]]], codes.code[touched]
    leaves = counted[old] & (uses[old] == 1)
    comes = counted[new] & (uses[new] == 0)
    after = np.where(old == new, distinct, distinct - leaves + comes)
    kept[touched] = after <= most
    return kept


def _cardinality(problem: Problem, rows: IntArray, coupling: Cardinality) -> BoolArray:
    listed = np.zeros(problem.choice_count, np.int64)
    listed[list(coupling.rows)] = 1
    now = int(listed[rows].sum())
    after = now + listed - listed[rows][problem.group_of]
    kept = np.ones(problem.choice_count, bool)
    if coupling.kind != "at_least":
        kept &= after <= coupling.count
    if coupling.kind != "at_most":
        kept &= after >= coupling.count
    return kept


def _implies(problem: Problem, rows: IntArray, coupling: Implies) -> BoolArray:
    def taken(row: int) -> BoolArray:
        """Whether a row is taken after each change."""
        group = int(problem.group_of[row])
        after = np.full(problem.choice_count, bool(rows[group] == row))
        inside = slice(int(problem.indptr[group]), int(problem.indptr[group + 1]))
        after[inside] = False
        after[row] = True
        return after

    return ~taken(coupling.if_row) | taken(coupling.then_row)


def name(coupling: Coupling) -> str:
    """Its kind, as the format spells it."""
    if isinstance(coupling, Cardinality):
        return coupling.kind
    return {SameChoice: "same_choice", MaxDistinct: "max_distinct", Implies: "implies"}[type(coupling)]


def told(problem: Problem, coupling: Coupling) -> str:
    """The coupling in words."""

    def place(row: int) -> str:
        return f"{problem.group_names[int(problem.group_of[row])]}={problem.choice_name(row)}"

    if isinstance(coupling, Implies):
        return f"{place(coupling.if_row)} implies {place(coupling.then_row)}"
    if isinstance(coupling, Cardinality):
        return f"{coupling.kind} {coupling.count} of {_some([place(r) for r in coupling.rows])}"
    where = _some([problem.group_names[g] for g in coupling.groups])
    if isinstance(coupling, SameChoice):
        return f"same_choice of {where}"
    where = "all groups" if coupling.everywhere else where
    ignoring = f", not counting {_some(sorted(coupling.ignore))}" if coupling.ignore else ""
    return f"max_distinct {coupling.count} over {where}{ignoring}"


def state(problem: Problem, rows: IntArray, coupling: Coupling) -> tuple[str, bool]:
    """The coupling in words with what the allocation makes of it, and whether it leaves no room."""
    text = told(problem, coupling)
    if isinstance(coupling, Implies):
        taken = bool(rows[problem.group_of[coupling.if_row]] == coupling.if_row)
        return f"{text}: {'taken' if taken else 'not taken'}", taken
    if isinstance(coupling, Cardinality):
        n = int(np.isin(np.array(coupling.rows), rows).sum())
        return f"{text}: {n} taken", n == coupling.count or coupling.kind == "exactly"
    labels = problem.label_codes
    used = {labels.table[c] for c in np.unique(labels.code[rows[list(coupling.groups)]]).tolist()}
    if isinstance(coupling, SameChoice):
        return f"{text}: {_some(sorted(used))}", True
    used -= coupling.ignore
    return f"{text}: {_some(sorted(used)) or 'none'}", len(used) >= coupling.count


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
