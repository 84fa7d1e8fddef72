"""What is false in a solution, by the reference: the bar that every backend's answers have to pass."""

from __future__ import annotations

import math
from collections.abc import Iterator

from allocator.solution import Solution
from allocator.testing.reference import Best, Places, Reference

TOLERANCE = 1e-12  # of S: what "optimal" leaves open


def false_claims(reference: Reference, solution: Solution) -> list[str]:
    """Everything that the solution says and the reference denies, in words; empty for a truthful one.

    Looks at all allocations. A heuristic's answer passes too: what counts is that nothing is wrong, not that
    the optimum was found.
    """
    return list(_false(reference, solution))


def tolerance(reference: Reference) -> float:
    """By how much two objectives may differ and still be equally good: 1e-12·S, and the rounding of a loss."""
    return TOLERANCE * reference.scale + reference.noise


def _false(reference: Reference, solution: Solution) -> Iterator[str]:
    best = reference.best
    if solution.allocation is None:
        yield from _without(solution, best)
        return
    if solution.status not in ("optimal", "feasible"):
        yield f"status {solution.status} beside an allocation"
    places: Places = tuple(solution.allocation.choice.tolist())
    broken = reference.violations(places)
    if broken:
        yield f"an allocation that is not feasible: {broken}"
        return
    if dict(solution.choices) != reference.names(places):
        yield "choices do not name the allocation"
    for name, said, true in (
        ("objective", solution.objective, reference.objective(places)),
        ("loss", solution.loss, reference.loss(places)),
        ("totals", dict(solution.totals), reference.totals(places)),
    ):
        if said != true:
            yield f"{name} {said}, in truth {true}"
    assert best is not None
    assert solution.objective is not None
    slip = tolerance(reference)
    if solution.status == "optimal":
        if solution.objective > best.objective + slip:
            yield f"optimal at {solution.objective!r}, yet {best.objective!r} is feasible"
        elif solution.objective <= best.objective and reference.tie(places) > best.tie + slip:
            yield f"optimal, yet Σ unary is {reference.tie(places)!r} and could be {best.tie!r}"
        if solution.proven_bound != solution.objective:
            yield "optimal, yet proven_bound differs from the objective"
    yield from _bound(solution, best, slip, reference)
    yield from _multipliers(solution, reference)


def _without(solution: Solution, best: Best | None) -> Iterator[str]:
    if solution.status not in ("infeasible", "unknown"):
        yield f"status {solution.status} without an allocation"
    if solution.status == "infeasible" and best is not None:
        yield f"infeasible, yet {best.places} is feasible"
    if solution.objective is not None or solution.choices:
        yield "an objective or choices without an allocation"


def _bound(solution: Solution, best: Best, slip: float, reference: Reference) -> Iterator[str]:
    bound, objective = solution.proven_bound, solution.objective
    assert objective is not None
    if bound is None:
        if solution.gap is not None:
            yield "a gap without a bound"
        return
    if not math.isfinite(bound) or bound > best.objective + slip:
        yield f"proven bound {bound!r} above the optimum {best.objective!r}"
    if bound > objective:
        yield f"proven bound {bound!r} above the objective"
    gap = 0.0 if bound == objective else (objective - bound) / max(abs(objective), 1e-9 * reference.scale)
    if solution.gap is None or not math.isclose(solution.gap, gap, rel_tol=1e-6, abs_tol=1e-300):
        yield f"gap {solution.gap}, in truth {gap}"


def _multipliers(solution: Solution, reference: Reference) -> Iterator[str]:
    rows = reference.rows.get("budgets", [])
    if len(solution.multipliers) != len(rows) or len(solution.slack) != len(rows):
        yield "multipliers or slack are not parallel to the budgets"
        return
    for i, (row, price) in enumerate(zip(rows, solution.multipliers, strict=True)):
        if price is None:
            continue
        if not math.isfinite(price) or (price > 0 and "max" not in row) or (price < 0 and "min" not in row):
            yield f"multiplier {price} of budget {i} has no side to price"
