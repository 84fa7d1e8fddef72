"""`auto`: which backend for which problem, and why."""

from __future__ import annotations

import math

from allocator.features import LINEAR
from allocator.problem import Problem

FEW = 20_000
FEW_ROWS = 4
SEVERAL_GROUPS = 1_000
COUPLED_GROUPS = 2_000
COUPLINGS = frozenset({"max_distinct", "implies", "cardinality"})
QUADRATIC = LINEAR | {"pairs", "basis"}
ENGINE = LINEAR | {"loss_budgets", "pnorm_loss", "max_loss"}


def choose_solver(problem: Problem | None) -> tuple[str, str]:
    """Registry name of a backend that takes the (reduced) problem, and the reason in words."""
    if problem is None:
        return "brute_force", "the problem is infeasible before any search"
    count = math.prod(problem.sizes.tolist()) if problem.group_count < 64 else math.inf
    if count <= FEW:
        return "brute_force", f"only {count} allocations: all of them can be looked at"
    groups, parts = problem.group_count, problem.features
    if parts & {"pairs", "basis"}:
        if parts <= QUADRATIC:
            return "quadratic", "our own engine for losses with interactions: bounds, proofs and local search"
        return "ortools_cpsat", f"it takes {', '.join(sorted(parts))}"
    if parts <= ENGINE and "several_budgets" not in parts:
        return "exact", "one budget over sums: the engine proves the optimum at any size"
    if parts <= ENGINE and len(problem.budgets) <= FEW_ROWS and groups <= SEVERAL_GROUPS:
        return "exact", f"{len(problem.budgets)} budgets over {groups} groups: the engine searches under all of them"
    if parts <= ENGINE | COUPLINGS and parts & COUPLINGS and groups <= COUPLED_GROUPS:
        return "exact", f"{', '.join(sorted(parts & COUPLINGS))}: by cases, each solved by the engine"
    if parts <= LINEAR | {"pnorm_loss"} and groups > SEVERAL_GROUPS:
        return "lagrangian", f"{groups} groups under several budgets are too many to search; bound and repair are not"
    if parts & COUPLINGS:
        return "ortools_cpsat", f"it takes {', '.join(sorted(parts))}"
    return "ortools_mip", "exact for what the engine does not take, at this size"
