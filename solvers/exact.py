"""The exact engine: certified optimum of the grouped knapsack, at any size."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator import registry
from allocator.certificate import Multipliers
from allocator.engine import native, running
from allocator.engine.separable import Separated, closeness, solve_separable
from allocator.errors import UnsupportedError
from allocator.evaluation import lexicographic
from allocator.features import LINEAR
from allocator.linear import Linear, linearise
from allocator.pipeline import run_backend
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer

ENGINES = ("auto", "c", "numpy")
MIP = "ortools_mip"
OUT_OF = {
    "nodes": "the search under several budgets ran out of nodes",
    "cases": "the couplings made too many cases",
    "rounding": "the limit of a float row lies within rounding",
}


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Our own engine: relaxation, gcd tightening, reduced-cost fixing, list program on the core; with proof.

    One budget: the linear relaxation by prune and search (Dyer 1984, Zemel 1984), the budget lowered to what the
    common divisor of the cost differences can use, choices fixed by reduced cost, and an exact list program on
    what survives (Pisinger 1995). Several budgets: depth-first search under many multipliers. The least maximum:
    by threshold. A p-norm: by powers. Couplings: by cases, each solved exactly; past a number of cases, or where
    the search of several budgets runs out of nodes, a MIP solver takes over, and the statistics say so.

    engine: "c", "numpy", or "auto" for C where the extension was built.
    """

    engine: str = "auto"

    name: ClassVar[str] = "exact"
    features: ClassVar[frozenset[str]] = LINEAR | {
        "loss_budgets",
        "pnorm_loss",
        "max_loss",
        "max_resource",
        "max_distinct",
        "cardinality",
        "implies",
    }
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r}: give {', '.join(ENGINES)}")
        if self.engine == "c" and native() is None:
            if os.environ.get("ALLOCATOR_ENGINE") == "numpy":
                raise ValueError("engine='c': ALLOCATOR_ENGINE=numpy turns it off; unset it, or use 'numpy'")
            raise ValueError("engine='c': the extension was not built; install with a C compiler, or use 'numpy'")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The optimum with its certificate, or, where a limit fires, the best allocation and a bound."""
        begin = None if start is None else problem.indptr[:-1] + start
        if lexicographic(problem):
            from allocator.engine.threshold import solve_threshold  # these two are loaded when they are needed

            oracle = partial(self._separated, limits=limits, begin=begin)
            try:
                found = solve_threshold(problem, oracle)
            except UnsupportedError:
                return _handed_over(problem, limits, start, "its rows are not separable")
            return self._finished(problem, found, found.bound, limits, start)
        try:
            linear = linearise(problem)
        except UnsupportedError as error:
            return _handed_over(problem, limits, start, str(error))
        found = self._separated(linear, limits=limits, begin=begin)
        return self._finished(problem, found, linear.objective(found.bound), limits, start)

    def _finished(
        self, problem: Problem, found: Separated, bound: float, limits: Limits, start: NDArray[np.int64] | None
    ) -> Answer:
        if found.limit not in OUT_OF:
            return _answer(problem, found, bound, limits)
        best = start if found.rows is None else found.rows - problem.indptr[:-1]
        return _handed_over(problem, limits, best, OUT_OF[found.limit])

    @staticmethod
    def running() -> str:
        """Which engine runs, in words, for `allocator solvers`."""
        return running()

    @property
    def _engine(self) -> str | None:
        return None if self.engine == "auto" else self.engine

    def _separated(self, linear: Linear, *, limits: Limits, begin: NDArray[np.int64] | None) -> Separated:
        """Couplings, if any, by cases; everything else by the engine."""
        close = _tolerance(linear, limits, self._engine) if limits.gap > 0 else None
        left = partial(_left, limits)
        oracle = partial(solve_separable, tolerance=close, seconds=left, engine=self._engine)
        if not linear.problem.couplings:
            return oracle(linear, start=begin)
        from allocator.engine.cases import solve_cases

        covered = solve_cases(linear, oracle, closeness(linear) if close is None else close, left)
        statistics = {"cases": covered.cases}
        return Separated(
            covered.rows,
            covered.total,
            covered.bound,
            covered.closed and covered.rows is None,
            covered.prices,
            covered.certificate,
            covered.limit,
            statistics,
        )


def _left(limits: Limits) -> float:
    return max(limits.left, 0.0)


def _tolerance(linear: Linear, limits: Limits, engine: str | None) -> float:
    """Gains in Σ value that the gap asked for allows to leave alone."""
    close = closeness(linear)
    rough = solve_separable(linear, tolerance=math.inf, seconds=partial(_left, limits), engine=engine)
    if not math.isfinite(rough.bound):
        return close
    low, high = linear.objective(rough.bound), linear.objective(rough.total)
    if low < 0 < high:
        return close  # how large the optimum is cannot be told
    wide = linear.total(low + limits.gap * min(abs(low), abs(high))) - rough.bound
    return max(close, wide)


def _answer(problem: Problem, found: Separated, bound: float, limits: Limits) -> Answer:
    proved = found.limit is None
    choice = None if found.rows is None else found.rows - problem.indptr[:-1]
    if choice is not None and limits.report is not None:
        limits.report(choice)
    certificate = found.certificate if proved else Multipliers(found.prices)
    claim: Any = ("optimal" if choice is not None else "infeasible") if proved else None
    if limits.gap > 0 and choice is not None:
        claim = None  # within the gap asked for, not more
    return Answer(
        choice=choice,
        claim=claim,
        claimed_bound=bound if math.isfinite(bound) else None,
        certificate=certificate,
        limit=found.limit,
        statistics=found.statistics,
    )


def _handed_over(problem: Problem, limits: Limits, start: NDArray[np.int64] | None, why: str) -> Answer:
    """What the engine cannot do, or not quickly, a MIP solver does in the time left."""
    left = None if limits.time is None else max(limits.left, 0.01)
    answer = run_backend(registry.make("solvers", MIP, {}), problem, dataclasses.replace(limits, time=left), start)
    return dataclasses.replace(answer, statistics={**answer.statistics, "handed_over": f"{MIP}: {why}"})
