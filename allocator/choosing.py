"""`auto`: which backend for which problem, and why."""

from __future__ import annotations

import math

from allocator.features import LINEAR
from allocator.problem import Problem

FEW = 20_000
MANY_GROUPS = 5_000


def choose_solver(problem: Problem | None) -> tuple[str, str]:
    """Registry name of a backend that takes the (reduced) problem, and the reason in words."""
    if problem is None:
        return "brute_force", "the problem is infeasible before any search"
    count = math.prod(problem.sizes.tolist()) if problem.group_count < 64 else math.inf
    if count <= FEW:
        return "brute_force", f"only {count} allocations: all of them can be looked at"
    if problem.features <= LINEAR and problem.group_count > MANY_GROUPS:
        return "lagrangian", f"{problem.group_count} groups are too many for a MIP solver; bound and repair are not"
    if problem.features & {"pairs", "basis", "max_distinct", "implies", "cardinality"}:
        return "ortools_cpsat", f"it takes {', '.join(sorted(problem.features))}"
    return "ortools_mip", "exact for sums under budgets at this size"
