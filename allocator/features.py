"""The parts of the format that a solver may or may not understand, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.statement import Basis, Cardinality, Implies, MaxDistinct, SameChoice

if TYPE_CHECKING:
    from allocator.problem import Problem

MEANING = {
    "several_budgets": "more than one budget row",
    "lower_budgets": "a budget row with a min",
    "scoped_budgets": "a budget row with tags",
    "score_budgets": "a limit on the sum of a score",
    "loss_budgets": "a limit on the loss",
    "resource_objective": "minimising a resource, or a mixture of loss and resources",
    "max_resource": "a resource whose total is the largest cost, minimised or with a min",
    "max_loss": "a loss that is the largest unary",
    "pnorm_loss": "a loss that is the p-norm of the unaries",
    "same_choice": "groups that must take one common label",
    "max_distinct": "a limit on the number of different labels",
    "cardinality": "at_most, at_least or exactly so many of some choices",
    "implies": "a choice that requires another",
    "pairs": "loss between pairs of choices",
    "basis": "loss between groups through error vectors",
}
ALL = frozenset(MEANING)
LINEAR = frozenset({"several_budgets", "lower_budgets", "scoped_budgets", "score_budgets", "resource_objective"})


def features_of(problem: Problem) -> frozenset[str]:
    """Features that the problem uses (pins, forbidden choices and maxima of `max` resources are plain masks)."""
    used: set[str] = set()
    rows = [b for b in problem.budgets if not _is_mask(problem, b.resource, b.min)]
    if len(rows) > 1 or any(b.max is not None and b.min is not None for b in rows):
        used.add("several_budgets")
    for b in rows:
        used |= {"lower_budgets"} if b.min is not None else set()
        used |= {"scoped_budgets"} if b.tags is not None else set()
        used |= {"score_budgets"} if b.score is not None else set()
        used |= {"loss_budgets"} if b.loss else set()
        if b.resource is not None and problem.resources[b.resource].aggregate == "max":
            used.add("max_resource")
    loss_matters = "loss" in problem.minimize or any(b.loss for b in problem.budgets)
    if list(problem.minimize) != ["loss"]:
        used.add("resource_objective")
        if any(r != "loss" and problem.resources[r].aggregate == "max" for r in problem.minimize):
            used.add("max_resource")
    if loss_matters and problem.loss.aggregate != "sum":
        used.add(f"{problem.loss.aggregate}_loss")
    names = {SameChoice: "same_choice", MaxDistinct: "max_distinct", Cardinality: "cardinality", Implies: "implies"}
    used |= {names[type(c)] for c in problem.couplings}
    if loss_matters:
        used |= {"basis" if isinstance(part, Basis) else "pairs" for _, part in problem.active_interactions}
    return frozenset(used)


def _is_mask(problem: Problem, resource: str | None, low: float | None) -> bool:
    return resource is not None and low is None and problem.resources[resource].aggregate == "max"
