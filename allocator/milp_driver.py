"""Turns an engine for mixed-integer programs into a solver: builds, solves, doubts, solves again.

An engine computes with tolerances, so its word is checked. Each vector is rounded to an allocation and
evaluated on the problem itself. One that breaks a row is cut off and the engine asked again; one that is
feasible, but worth more than the engine's bound, is kept, cut off, and the engine asked again. So what remains
is the true optimum wherever the engine's own bound is right, and the claim says no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import find_prices
from allocator.evaluation import Outcome, lexicographic, lower, scale_of, upper
from allocator.linear import Linear
from allocator.local_search import cheapest, improved, repaired
from allocator.milp import Milp, build
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.solution import Answer, Claim
from allocator.statement import BoolArray, Budget, FloatArray, IntArray

ROUNDS = 40
GUESSES = 6
LARGE = 10_000  # groups beyond which prices for several rows are not worth their time
TIGHTENINGS = 30
CLOSE = 1e-12  # of S: no allocation better by more is what optimal means


@dataclass(frozen=True, eq=False)
class Found:
    """An engine's word on one program.

    bound: lower bound on the program's objective (natural units, constant included), right to within error.
    "optimal": x attains the bound as the engine sees it; "feasible", "unknown": a limit fired.
    """

    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    x: FloatArray | None = None
    bound: float | None = None
    error: float = 0.0


class Engine(Protocol):
    """Solves one program. `seen` is called with vectors better than before, as they are found."""

    def __call__(
        self, model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]
    ) -> Found:
        """Stop at `limits.left`; `hint` is a vector to start from, or None."""
        ...


@dataclass(frozen=True, eq=False)
class _Stage:
    """Where one minimisation ended. bound: of its own criterion. closed: proved, as far as the engine is right."""

    best: Outcome | None
    bound: float
    closed: bool
    limit: str | None = None


def solve_milp(problem: Problem, limits: Limits, engine: Engine, start: NDArray[np.int64] | None = None) -> Answer:
    """Solve a problem through an engine.

    Returns:
        The best feasible allocation; claim "optimal" where the engine's bound meets it within 1e-12·S,
        "infeasible" where the engine found nothing; claimed_bound in the unit of the objective.

    Raises:
        UnsupportedError: a part of the problem that is not linear (see `allocator.milp.build`).
    """
    run = _Run(problem, limits, engine)
    if start is not None:
        run.offer(np.asarray(start, np.int64))
    if lexicographic(problem) and problem.minimize["loss"] >= 0:
        return _least_maximum(run)
    stage = run.minimise(lambda ceiling: build(problem, ceiling=ceiling), _objective)
    return run.answer(_claim(stage), stage.bound, stage.limit)


def _objective(outcome: Outcome) -> float:
    return outcome.objective


def _tie(outcome: Outcome) -> float:
    return outcome.tie


def _nothing(outcome: Outcome) -> float:
    return 0.0


def _least_maximum(run: _Run) -> Answer:
    """The least cap under which the rows can be met, by bisection over the unaries; then the least Σ unary."""
    problem, weight = run.problem, run.problem.minimize["loss"]
    unary = np.where(problem.free, problem.unary, np.inf)
    floor = float(np.minimum.reduceat(unary, problem.indptr[:-1]).max())
    if weight == 0.0 or not math.isfinite(floor):
        stage = run.minimise(_capped(problem, math.inf), _tie)
        return run.answer(_claim(stage), 0.0, stage.limit)
    levels = np.unique(unary[np.isfinite(unary) & (unary >= floor)])
    low, high = 0, len(levels) - 1  # the answer is one of levels[low..high]
    while True:
        if run.best is not None:
            high = min(high, int(np.searchsorted(levels, problem.unary[run.best.rows].max())))
            if low >= high or levels[high] - levels[low] <= run.limits.gap * abs(levels[high]):
                break
        middle = high if run.best is None else (low + high) // 2
        stage = run.minimise(_capped(problem, float(levels[middle]), idle=True), _nothing)
        if stage.best is not None:
            high = middle
        elif not stage.closed:
            return run.answer(None, weight * float(levels[low]), stage.limit)
        elif run.best is None:
            return run.answer("infeasible", math.inf, None)
        else:
            low = middle + 1
    stage = run.minimise(_capped(problem, float(levels[high])), _tie)
    return run.answer(_claim(stage) if low == high else None, weight * float(levels[low]), stage.limit)


def _capped(problem: Problem, cap: float, idle: bool = False) -> Callable[[float | None], Milp]:
    return lambda ceiling: build(problem, cap=cap, idle=idle, ceiling=ceiling)


def _claim(stage: _Stage) -> Claim | None:
    if not stage.closed:
        return None
    return "infeasible" if stage.best is None else "optimal"


@dataclass
class _Run:
    """One call: the incumbent, what was reported, and how often the engine was asked."""

    problem: Problem
    limits: Limits
    engine: Engine
    best: Outcome | None = None
    calls: int = 0
    cuts: int = 0
    size: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tolerance = CLOSE * scale_of(self.problem)

    def offer(self, choice: IntArray) -> Outcome:
        """Evaluate an allocation; keep and report it if it is the best feasible one so far."""
        outcome = self.problem.evaluate(choice)
        key = None if self.best is None else (self.best.objective, self.best.tie)
        if outcome.feasible and (key is None or (outcome.objective, outcome.tie) < key):
            self.best = outcome
            if self.limits.report is not None:
                self.limits.report(choice)
        return outcome

    def minimise(self, program: Callable[[float | None], Milp], value: Callable[[Outcome], float]) -> _Stage:
        """Ask the engine until its bound and the best allocation meet, or something stops it."""
        model = program(None)
        if self.best is None and model.hopeless is None:
            self._guess(model.linear)
        return _Search(self, model, value).run(program)

    def _guess(self, linear: Linear) -> None:
        """Something to fall back on, and for the engine to start from: what prices and local search find."""
        first = cheapest(linear)
        if first is None:
            return
        starts = [first]
        if len(linear.rows) < 2 or len(first) < LARGE:
            starts = [priced.rows for priced in find_prices(linear).seen[-GUESSES:]]
        for rows in starts:
            taken = repaired(linear, rows)
            if taken is not None:
                self.offer(improved(linear, taken) - self.problem.indptr[:-1])

    def answer(self, claim: Claim | None, bound: float, limit: str | None) -> Answer:
        """The incumbent with what is claimed of it."""
        if self.best is not None:
            bound = min(bound, self.best.objective)
        return Answer(
            choice=None if self.best is None else self.best.rows - self.problem.indptr[:-1],
            claim=claim,
            claimed_bound=bound if math.isfinite(bound) else None,
            limit=limit,
            statistics={**self.size, "engine_calls": self.calls, "cut_off": self.cuts},
        )


class _Search:
    """One criterion minimised over one program, which cuts make smaller."""

    def __init__(self, run: _Run, model: Milp, value: Callable[[Outcome], float]) -> None:
        self.parent = run
        self.model = model
        self.value = value
        self.best: Outcome | None = None
        self.best_is_cut = False
        self.bound = -math.inf
        self.exact = True  # until rows are tightened
        self.cuts = 0

    def run(self, program: Callable[[float | None], Milp]) -> _Stage:
        run = self.parent
        if run.best is not None and self.model.variables_of(run.best.rows - run.problem.indptr[:-1]) is not None:
            self.best = run.best
            self._shrink(program)
        run.size = run.size or {"variables": self.model.variables, "rows": sum(b.count for b in self.model.blocks)}
        while self.cuts <= ROUNDS + TIGHTENINGS:
            if self.model.hopeless is not None:
                return self._exhausted()
            if run.limits.left <= 0:
                return self._end(limit="time")
            run.calls += 1
            found = run.engine(self.model, run.limits, self._hint(), self._seen)
            if found.status == "infeasible":
                return self._exhausted()
            outcome = None if found.x is None else self._take(self.model.choice_of(found.x))
            met = self._met(found)
            if met and not self._blurred(found):
                return self._end(closed=True)
            if found.status != "optimal" or outcome is None:
                return self._end(limit="time")
            if self._near_enough() or (outcome.feasible and not self.exact):
                return self._end()
            if self._shrink(program):
                continue
            if met:
                return self._end(closed=True)
            self._cut(outcome)
        return self._end()

    def _exhausted(self) -> _Stage:
        """Nothing is left beside what was cut off; an engine that overlooks the best we have proves nothing."""
        closed = self.exact and (self.best is None or self.best_is_cut)
        if closed:
            self.bound = math.inf if self.best is None else self.value(self.best)
        return self._end(closed)

    def _end(self, closed: bool = False, limit: str | None = None) -> _Stage:
        return _Stage(self.best, self.bound, closed, limit)

    def _seen(self, x: NDArray[Any]) -> None:
        self._take(self.model.choice_of(x))

    def _take(self, choice: IntArray) -> Outcome:
        outcome = self.parent.offer(choice)
        if outcome.feasible and (self.best is None or self.value(outcome) < self.value(self.best)):
            self.best = outcome
            self.best_is_cut = False
        return outcome

    def _hint(self) -> FloatArray | None:
        if self.best is None or self.best_is_cut:
            return None
        return self.model.vector_of(self.best.rows - self.parent.problem.indptr[:-1])

    def _met(self, found: Found) -> bool:
        """Take over the engine's bound; whether the best allocation is as good as any that it can mean.

        What was cut off is no better than the best, so a bound on the rest is one on all.
        """
        if found.bound is None or not self.exact or math.isnan(found.bound):
            return False
        bound = self._criterion(found.bound - found.error)
        self.bound = max(self.bound, bound if self.best is None else min(bound, self.value(self.best)))
        if self.best is None or found.status != "optimal":
            return False
        return self.value(self.best) <= self._criterion(found.bound + found.error) + self.parent.tolerance

    def _blurred(self, found: Found) -> bool:
        """Whether what the engine cannot tell apart matters after all (small powers under a p-norm)."""
        if found.bound is None or self.model.linear.power == 1.0:
            return False
        width = self._criterion(found.bound + found.error) - self._criterion(found.bound - found.error)
        return width > self.parent.tolerance

    def _criterion(self, total: float) -> float:
        """A bound on the program's objective as a bound on the criterion (they differ under a p-norm)."""
        linear = self.model.linear
        return linear.objective(total) if linear.power != 1.0 and self.value is _objective else total

    def _near_enough(self) -> bool:
        gap = self.parent.limits.gap
        if self.best is None or gap == 0 or self.value is not _objective:
            return False
        value = self.value(self.best)
        return value - self.bound <= gap * abs(value)

    def _shrink(self, program: Callable[[float | None], Milp]) -> bool:
        """Drop choices that alone exceed the incumbent: what is left is better told apart by the engine's tolerance."""
        model = self.model
        if self.best is None or self.best_is_cut or model.maxima or len(model.products.first) or model.hopeless:
            return False
        smaller = program(math.fsum([model.linear.constant, *model.linear.value[self.best.rows].tolist()]))
        most, now = (float(m.objective.max(initial=0.0)) for m in (model, smaller))
        if smaller.hopeless is not None or now >= most / 2:
            return False
        self.model = smaller  # earlier cuts go; what they excluded may come back and is evaluated again
        return True

    def _cut(self, outcome: Outcome) -> None:
        """Exclude what was just evaluated; where only a float tolerance lets bad ones through, draw the row in."""
        problem, model = self.parent.problem, self.model
        choice = outcome.rows - problem.indptr[:-1]
        self.cuts += 1
        self.parent.cuts += 1
        self.best_is_cut |= self.best is not None and np.array_equal(outcome.rows, self.best.rows)
        broken = None if outcome.feasible else _broken_row(outcome)
        if broken is not None and self.cuts > ROUNDS:
            budget, excess = broken
            self.exact = False
            self.model = model.tightened(budget, 2.0 ** (self.cuts - ROUNDS) * excess)
            return
        taken = model.variables_of(choice)
        assert taken is not None
        index, most = _no_good(model, outcome, taken, None if broken is None else broken[0])
        self.model = model.without(index, most)


def _broken_row(outcome: Outcome) -> tuple[int, float] | None:
    """The first budget row that is not kept, and by how much."""
    problem = outcome.problem
    for i, (row, use) in enumerate(zip(problem.budgets, outcome.used, strict=True)):
        exact = row.resource is not None and problem.exact(row.resource)
        if row.max is not None and use > upper(row.max, exact):
            return i, float(use - upper(row.max, exact))
        if row.min is not None and use < lower(row.min, exact):
            return i, float(lower(row.min, exact) - use)
    return None


def _no_good(model: Milp, outcome: Outcome, taken: IntArray, budget: int | None) -> tuple[IntArray, int]:
    """Choice variables of which at most so many may be taken: not this allocation again.

    Where it breaks a resource or score row, neither any that uses at least as much of it (at most, under a min)
    in every group.
    """
    column = None if budget is None else _column(model, budget)
    if column is None or budget is None:
        wide = np.diff(model.start) > 1
        index = taken[wide]
        return index, len(index) - 1
    sign = 1 if _over(outcome, model.problem.budgets[budget], budget) else -1
    use = sign * column[model.row]
    mine = use[taken][model.group_of]
    least = np.minimum.reduceat(use, model.start[:-1])
    above: BoolArray = (use >= mine) & (use[taken] > least)[model.group_of]
    return np.flatnonzero(above), int((use[taken] > least).sum()) - 1


def _column(model: Milp, budget: int) -> NDArray[Any] | None:
    """The row's column, where the use can only grow with each of its entries, rounding included."""
    if model.problem.budgets[budget].loss:
        return None
    return next((r.column for r in model.linear.rows if r.budget == budget), None)


def _over(outcome: Outcome, row: Budget, budget: int) -> bool:
    exact = row.resource is not None and outcome.problem.exact(row.resource)
    return row.max is not None and outcome.used[budget] > upper(row.max, exact)
