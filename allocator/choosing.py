"""`auto`: which backend for which problem, and why."""

from __future__ import annotations

import math

import numpy as np

from allocator.chains import chains, distinct
from allocator.features import LINEAR
from allocator.milp import MOST_PRODUCTS
from allocator.problem import Problem
from allocator.statement import Cardinality, IntArray, Pairs

FEW = 20_000
FEW_ROWS = 4
SEVERAL_GROUPS = 1_000
COUPLED_GROUPS = 2_000
CELLS = 1_000_000  # of the tables along chains: half of what `graph` takes
DENSE = 3  # joined pairs of groups for each group: above, products of choices are too many for an integer program
MANY_CASES = (
    24  # rows that count choices, such as a network's channels bring: 60 of them take 15 s by cases, 0.4 s there
)
COUPLINGS = frozenset({"max_distinct", "implies", "cardinality"})
QUADRATIC = LINEAR | {"pairs", "basis"}
SUBSPACE = QUADRATIC | {"loss_budgets"}
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
        joined = _joined(problem)
        if parts <= QUADRATIC - {"several_budgets"} and joined is not None and _in_chains(problem, joined):
            return "graph", "interactions along chains of groups: lists of states prove the optimum"
        if parts <= QUADRATIC:
            return "quadratic", "our own engine for losses with interactions: bounds, proofs and local search"
        if parts <= SUBSPACE and (joined is None or len(joined) > DENSE * groups):
            return "cvxpy_subspace", "a limit on a loss in which nearly all groups interact: bounds and local search"
        if parts & COUPLINGS and _products(problem, joined) > MOST_PRODUCTS:
            return "annealing", (
                "couplings and more products of choices than an integer program is built for: search from the optimum "
                "without interactions"
            )
        return "ortools_cpsat", f"it takes {', '.join(sorted(parts))}"
    if parts <= ENGINE and "several_budgets" not in parts:
        return "exact", "one budget over sums: the engine proves the optimum at any size"
    if parts <= ENGINE and len(problem.budgets) <= FEW_ROWS and groups <= SEVERAL_GROUPS:
        return "exact", f"{len(problem.budgets)} budgets over {groups} groups: the engine searches under all of them"
    if parts <= LINEAR | COUPLINGS and sum(isinstance(one, Cardinality) for one in problem.couplings) > MANY_CASES:
        return "ortools_mip", "so many couplings over numbers of choices make too many cases for the engine"
    if parts <= ENGINE | COUPLINGS and parts & COUPLINGS and groups <= COUPLED_GROUPS:
        return "exact", f"{', '.join(sorted(parts & COUPLINGS))}: by cases, each solved by the engine"
    if parts <= LINEAR | {"pnorm_loss"} and groups > SEVERAL_GROUPS:
        return "lagrangian", f"{groups} groups under several budgets are too many to search; bound and repair are not"
    if parts & COUPLINGS:
        return "ortools_cpsat", f"it takes {', '.join(sorted(parts))}"
    return "ortools_mip", "exact for what the engine does not take, at this size"


def _joined(problem: Problem) -> IntArray | None:
    """Two groups each [M, 2] that have pairs between them, once; None where a basis joins what it may."""
    found = [np.zeros((0, 2), np.int64)]
    for _, part in problem.active_interactions:
        if not isinstance(part, Pairs):
            return None
        found.append(np.sort(problem.group_of[part.index], axis=1))
    ends = np.concatenate(found)
    key = distinct(ends[:, 0] * problem.group_count + ends[:, 1])
    ends = np.stack([key // problem.group_count, key % problem.group_count], axis=1)
    return np.asarray(ends[(problem.sizes[ends] > 1).all(axis=1)])


def _products(problem: Problem, joined: IntArray | None) -> int:
    """Products of two choices of different groups that interactions make, at most."""
    if joined is None:
        return int((problem.choice_count**2 - (problem.sizes**2).sum()) // 2)
    return int(problem.sizes[joined].prod(axis=1).sum())


def _in_chains(problem: Problem, joined: IntArray) -> bool:
    if int(problem.sizes[joined].prod(axis=1).sum()) + problem.choice_count > CELLS:
        return False
    return chains(joined[:, 0], joined[:, 1], problem.group_count) is not None
