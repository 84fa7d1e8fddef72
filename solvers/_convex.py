"""Convex programs through cvxpy: engines in turn, the rows of the problem in units that engines like."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.checks.lagrangian import proves_infeasible
from allocator.errors import SolverError
from allocator.linear import Linear
from allocator.protocols import Limits
from allocator.statement import FloatArray

ENGINES = ("CLARABEL", "SCS")
CLOCKS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}
GOOD = ("optimal", "optimal_inaccurate")
ENDED = (*GOOD, "infeasible", "infeasible_inaccurate", "unbounded", "unbounded_inaccurate")
LEAST_TIME = 0.01
SLACK = 1e-12  # of a row's size: what its limits are widened by, so that sums that round keep them


@dataclass(frozen=True, eq=False)
class Side:
    """column·x ≤ limit [N], in units of the row's range; sign −1: a min, turned round. budget: the row it came from."""

    column: FloatArray
    limit: float
    budget: int
    sign: int
    reach: float


def sides_of(linear: Linear) -> list[Side]:
    """Every side of every row that could be broken: each group's least is taken off, the range is 1."""
    start, group, free = linear.problem.indptr[:-1], linear.problem.group_of, linear.free
    found = []
    for row in linear.rows:
        for sign, limit in ((1, row.hi), (-1, row.lo)):
            if limit is None:
                continue
            column = sign * row.column.astype(np.float64)
            least = np.minimum.reduceat(np.where(free, column, np.inf), start)
            shifted = np.where(free, column - least[group], 0.0)
            reach = math.fsum(np.maximum.reduceat(shifted, start).tolist())
            room = math.fsum([sign * float(limit), *(-least).tolist()])
            size = math.fsum(np.abs(least).tolist()) + abs(float(limit)) + reach
            room += SLACK * size
            if room < reach:
                found.append(Side(shifted / reach, room / reach, row.budget, sign, reach))
    return found


def run(problem: Any, limits: Limits, engines: Iterable[str] = ENGINES) -> tuple[str, str]:
    """The first engine that comes to an end, and how: cvxpy's word for it, or "time".

    Raises:
        SolverError: none did; the text has what each said.
    """
    assert problem.is_dcp()
    said = []
    for engine in engines:
        if limits.left <= 0:
            return engine.lower(), "time"
        clock = {} if limits.time is None else {CLOCKS[engine]: max(limits.left, LEAST_TIME)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "solution may be inaccurate": no bound depends on it
                problem.solve(solver=engine, **clock)
        except Exception as error:  # an engine that gives up raises cvxpy's error or its own
            said.append(f"{engine}: {type(error).__name__}: {error}")
            continue
        if problem.status in ENDED:
            return engine.lower(), problem.status
        said.append(f"{engine}: {problem.status}")
    if limits.left <= 0:
        return "none", "time"
    raise SolverError(f"no engine of cvxpy solved the relaxation ({'; '.join(said)}); try graph or ortools_cpsat")


def exclusion(linear: Linear, limits: Limits) -> tuple[float, ...] | None:
    """Prices per budget row that prove that no allocation keeps all rows; None where there are none to be found.

    They are the dual values of the program that misses the rows by as little as can be.
    """
    import cvxpy

    cp: Any = cvxpy  # typed in parts only
    sides, free = sides_of(linear), np.flatnonzero(linear.free)
    if not sides:
        return None
    x, missed = cp.Variable(len(free), nonneg=True), cp.Variable(len(sides), nonneg=True)
    columns = np.array([s.column[free] for s in sides])
    kept = columns @ x - missed <= np.array([s.limit for s in sides])
    _, status = run(cp.Problem(cp.Minimize(cp.sum(missed)), [membership(linear) @ x == 1, kept]), limits)
    if status not in GOOD or kept.dual_value is None:
        return None
    prices = [0.0] * len(linear.problem.budgets)
    for side, price in zip(sides, np.asarray(kept.dual_value).reshape(-1).tolist(), strict=True):
        prices[side.budget] += side.sign * max(price, 0.0) / side.reach
    return tuple(prices) if proves_infeasible(linear, prices) else None


def membership(linear: Linear) -> Any:
    """Which free choice is in which group: a sparse 0/1 matrix [G, F]."""
    from scipy.sparse import csr_array

    free = np.flatnonzero(linear.free)
    groups = linear.problem.group_of[free]
    return csr_array(
        (np.ones(len(free)), (groups, np.arange(len(free)))), shape=(linear.problem.group_count, len(free))
    )
