"""frontier(): what every amount of one resource buys, exactly optimal at each point, in one pass over the choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocator.certificate import Core
from allocator.curve import Frontier, empty_frontier, thinned, without_rows
from allocator.engine.hull import Hull, hull_moves
from allocator.engine.knapsack import to_integers
from allocator.errors import ProblemError, UnsupportedError, UsageError
from allocator.filling import fill
from allocator.formats.digest import content_sha256
from allocator.linear import SMALL, Linear, linearise
from allocator.problem import Problem
from allocator.progress import Progress
from allocator.protocols import Solver
from allocator.reduce import Reduced, reduce
from allocator.solution import Answer, Solution
from allocator.statement import Budget, IntArray, Number
from allocator.verification import verify

WAY_OUT = "exact=True (--exact) takes it: a solver finds each point"


def frontier(
    problem: Problem | Mapping[str, Any] | str | Path,
    resource: str | None = None,
    *,
    exact: bool = False,
    points: int | Sequence[Number | str] | None = None,
    gap: float | None = None,
    solver: str | Solver = "auto",
    time_limit: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Frontier:
    """The objective against one resource: the allocations that no other beats in both.

    Without `exact`, the corners of the lower convex hull and what lies on its edges: the allocations that minimise
    objective + λ·(total of the resource) for some λ ≥ 0. Each is optimal under a budget of its own cost, within
    1e-12 of the size of the numbers, and one pass over the choices finds all of them; budgets between two of them
    may allow better ones. The problem must be separable, with no budget row but those of the resource and maxima
    of `max` resources. With `exact`, a solver looks between the points, and takes whatever that solver takes.

    Args:
        problem: a `Problem`, the path of a problem.json, or its row form. The rows of the resource without tags,
            both sides, are what is traded: they are left out.
        resource: default the only one.
        exact: fill the gaps between hull points by `solve`, each answer checked by the core.
        points: with exact: so many budgets from the least to the largest cost, or these (default 20).
        gap: with exact, instead of points: until neighbours differ by at most this share in cost or in objective.
        solver: with exact: name, "auto", or an instance.
        time_limit: with exact: seconds for all points together; what was found by then is returned.
        seed: with exact: of whatever is random.
        threads: with exact: at most so many.
        progress: called as progress(what, done, total) while solvers run.

    Returns:
        A `Frontier`; without points where the problem is infeasible, `reasons` then says why.

    Raises:
        ProblemError: the file is not valid.
        UsageError: an unknown resource or solver, or an argument that only `exact` takes.
        UnsupportedError: without exact, a part of the problem that has no hull, by name.
    """
    stated = _load(problem)
    name = traded_resource(stated, resource)
    if not exact:
        asked: dict[str, Any] = {"points": points, "gap": gap, "time_limit": time_limit}
        asked["solver"] = None if solver == "auto" else solver
        for option in [k for k, v in asked.items() if v is not None]:
            raise UsageError(f"frontier: {option} needs exact=True (--exact): the hull is one pass without a solver")
        return hull_frontier(stated, name)
    try:
        start: Frontier | None = hull_frontier(stated, name)
    except UnsupportedError:
        start = None
    settings = {"solver": solver, "seed": seed, "threads": threads}
    return fill(stated, name, start, points, gap, time_limit, settings, progress)


def _load(problem: Problem | Mapping[str, Any] | str | Path) -> Problem:
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, Mapping):
        return Problem.from_rows(problem)
    from allocator.formats.problems import load_problem

    return load_problem(problem)


def traded_resource(problem: Problem, resource: str | None) -> str:
    """The resource that is meant: the named one, or the only one.

    Raises:
        UsageError: there is no such resource, or several and none named.
    """
    known = ", ".join(problem.costs)
    if resource is None:
        if len(problem.costs) != 1:
            raise UsageError(f"frontier: say in which resource, --resource {next(iter(problem.costs))} ({known})")
        return next(iter(problem.costs))
    if resource not in problem.costs:
        raise UsageError(f"frontier: there is no resource {resource!r}; known: {known}")
    return resource


def hull_frontier(problem: Problem, resource: str) -> Frontier:
    """All points of the convex hull.

    Raises:
        UnsupportedError: naming the part that has no hull.
    """
    if problem.resources[resource].aggregate == "max":
        raise UnsupportedError(f"frontier: {resource!r} takes the largest cost, which has no hull; {WAY_OUT}")
    reduced = reduce(without_rows(problem, resource))
    if reduced.problem is None:
        return empty_frontier(problem, resource, (reduced.reason or "the problem is infeasible",))
    linear = _separable(reduced, resource)
    stuck = ~np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1])
    if stuck.any():
        return empty_frontier(problem, resource, ("no choice of some group keeps the largest cost or loss allowed",))
    column, power = linear.problem.cost(resource), 0
    if not linear.problem.exact(resource):
        column, power, _ = to_integers(column, linear.problem.indptr)
    hull = hull_moves(linear.value, column.astype(np.int64, copy=False), linear.problem.indptr, linear.free)
    return _frontier_of(problem, resource, reduced, linear, hull, power)


def _separable(reduced: Reduced, resource: str) -> Linear:
    """The reduced problem as sums under no row at all."""
    given = reduced.problem
    assert given is not None
    if given.couplings:
        kinds = ", ".join(sorted(given.features & {"same_choice", "max_distinct", "cardinality", "implies"}))
        raise UnsupportedError(f"frontier: couplings between groups ({kinds}) have no hull; {WAY_OUT}")
    try:
        linear = linearise(given)
    except UnsupportedError as error:
        raise UnsupportedError(f"frontier: {error}; {WAY_OUT}") from None
    rows = [r for r in linear.rows if r.lo is not None or r.hi is not None]
    if rows:
        stated = len(reduced.original.budgets)
        names = dict.fromkeys(given.budgets[r.budget].name if r.budget < stated else "a coupling" for r in rows)
        raise UnsupportedError(f"frontier: a hull keeps no other budget row ({', '.join(names)}); {WAY_OUT}")
    if reduced.original.exact(resource) and not given.exact(resource):
        raise UnsupportedError(f"frontier: {resource!r} of merged groups no longer fits 63 bits; {WAY_OUT}")
    if linear.power != 1 and ((linear.value < SMALL) & (given.unary > 0) & linear.free).any():
        p = given.loss.p
        raise UnsupportedError(f"frontier: unaries are too far apart for their powers of {p} to be added; {WAY_OUT}")
    return linear


def _frontier_of(problem: Problem, resource: str, reduced: Reduced, linear: Linear, hull: Hull, power: int) -> Frontier:
    """The hull of the reduced problem in terms of the stated one."""
    offset = problem.resources[resource].offset
    if problem.exact(resource):
        costs: Any = hull.costs  # the hull is nobody else's: millions of points need no second copy
        costs += int(offset)
    else:
        costs = np.ldexp(hull.costs.astype(np.float64), -power) + offset
        np.maximum.accumulate(costs, out=costs)
    if linear.power == 1.0:
        objectives = hull.values
        objectives += linear.constant
        multipliers = np.append(np.ldexp(hull.slope, power) if power else hull.slope, 0.0)
    else:
        objectives = linear.scale * np.maximum(hull.values, 0.0) ** (1 / linear.power)
        with np.errstate(divide="ignore", invalid="ignore"):
            multipliers = np.concatenate([-np.diff(objectives) / np.diff(costs), [0.0]])
    base, group, choice, steps = _expanded(reduced, hull)
    fields = thinned(
        {"costs": costs, "objectives": objectives, "multipliers": multipliers, "steps": steps,
         "base": base, "group": group, "choice": choice}
    )  # fmt: skip
    return Frontier(problem=problem, resource=resource, **fields)


def _expanded(reduced: Reduced, hull: Hull) -> tuple[Any, Any, Any, IntArray | None]:
    """Base and moves on the stated groups; a merged group moves all its members, and steps then counts them."""
    original, given = reduced.original, reduced.problem
    assert given is not None
    base = reduced.expand(hull.base).astype(np.int32)
    if reduced.taken is None:
        return base, hull.group, hull.choice, None
    rows = reduced.taken[given.indptr[hull.group] + hull.choice]
    present = rows >= 0
    flat = rows[present]
    group = original.group_of[flat]
    choice = flat - original.indptr[group]
    steps = None
    if reduced.taken.shape[1] > 1:
        steps = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return base, group.astype(np.int32), choice.astype(np.int32), steps


def certified(curve: Frontier, i: int) -> Solution:
    """Point i under a budget of its own cost, through the core's own checks; `Frontier.solution`.

    Raises:
        UsageError: the frontier was loaded without its problem.
    """
    from allocator import __version__

    problem, resource = curve.problem, curve.resource
    if problem is None:
        raise UsageError("frontier: was loaded without its problem; load_frontier(path, problem) gives it back")
    choice = curve.allocation(i)
    total = problem.evaluate(choice).totals[resource]
    stated = problem.with_budget(resource, max=total)
    reduced = reduce(stated)
    answer = Answer(choice=reduced.contract(choice))
    point = curve.point(i)
    if point.status == "optimal":
        answer = dataclasses.replace(answer, claim="optimal")
    if point.kind == "hull" and point.multiplier is not None and problem.loss.aggregate == "sum":
        traded = stated.budgets.index(Budget(resource=resource, max=total))
        prices = tuple(point.multiplier if j == traded else 0.0 for j in range(len(stated.budgets)))
        answer = dataclasses.replace(answer, certificate=Core(prices))
    identity = {"file_sha256": problem.file_sha256, "sha256": content_sha256(problem)}
    return dataclasses.replace(
        verify(stated, reduced, answer),
        solver={"name": "frontier", "version": __version__, "options": {"kind": point.kind}},
        problem={**identity, "overrides": {resource: {"max": total}}},
    )


def load_frontier(path: str | Path, problem: Problem | None = None) -> Frontier:
    """Read a frontier; with its problem, `solution` works again. The JSON form names choices and needs the problem.

    Raises:
        ProblemError: the file breaks the format, or belongs to another problem.
        UsageError: a JSON file without the problem.
    """
    from allocator.formats.frontiers import read_frontier

    curve = read_frontier(path, problem)
    if problem is not None and curve.sha256 not in (None, content_sha256(problem)):
        from allocator.errors import Fault

        raise ProblemError([Fault(f"{path}", "belongs to a problem with another content hash")], "frontier")
    return curve
