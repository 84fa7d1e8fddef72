"""Per-layer numbers of the groups' `stats`, refused by name where they are missing or cannot be meant."""

from __future__ import annotations

import numpy as np

from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.statement import BoolArray, FloatArray

ELSE = "or use a solver that needs none, such as exact, lagrangian or greedy"


def stat(problem: Problem, solver: str, name: str, meaning: str, *, least: float = -np.inf) -> FloatArray:
    """One number per group [G].

    Args:
        problem: whose groups carry it.
        solver: registry name of who asks.
        name: of the stat.
        meaning: in the problem's words, for the refusal.
        least: numbers have to be above it.

    Raises:
        UnsupportedError: some group lacks it, or has a number that cannot be meant; the text names the solver,
            the stat, the group and the way out.
    """
    column = problem.stats.get(name)
    if column is None or np.isnan(column).all():
        raise UnsupportedError(
            f"solver {solver!r} needs the stat {name!r} of every group ({meaning}), and no group has it (groups that "
            f'same_choice merges lose theirs); give each group "stats": {{"{name}": …}} (columns: stats/{name}), {ELSE}'
        )
    _refuse(problem, solver, name, meaning, np.isnan(column), "lacks it")
    _refuse(problem, solver, name, meaning, column <= least, f"has one that is not above {least:g}")
    return column


def has_any(problem: Problem, *names: str) -> bool:
    """Whether some group carries one of these stats, so that all groups have to."""
    return any(name in problem.stats and not np.isnan(problem.stats[name]).all() for name in names)


def _refuse(problem: Problem, solver: str, name: str, meaning: str, bad: BoolArray, why: str) -> None:
    if bad.any():
        g = int(np.flatnonzero(bad)[0])
        raise UnsupportedError(
            f"solver {solver!r} needs the stat {name!r} of every group ({meaning}); group number {g} (from 0, "
            f"{problem.group_names[g]!r}) {why}; correct it, {ELSE}"
        )
