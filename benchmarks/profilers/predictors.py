"""What predicts the divergence of choices and of whole networks: the entries that the goals are about.

One more is one more function in `MAKERS`; the rows `whole` and `allocated` measure it with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from allocator import Problem, profile, refine, solve
from allocator.errors import SolverError
from allocator.statement import FloatArray, IntArray
from benchmarks.profilers.subject import Subject

LABEL = "int3"
"""Its uniform allocation sets the budget at which allocations are compared."""
WITH_INTERACTIONS = ("annealing", "cvxpy_qp")
"""Neither is exact on interactions; the better answer counts."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predictions of KL in nats, and the allocation that they lead to.

    unary: of every single choice, in the order of the problem's rows. predict: of allocations [n, G], to [n].
    allocate: from the most weight_bytes to an allocation [G]. interactions: parts between groups in it; 0 is additive.
    """

    unary: FloatArray
    predict: Callable[[IntArray], FloatArray]
    allocate: Callable[[int], IntArray]
    interactions: int = 0


def ggn(subject: Subject) -> Predictor:
    """The default statistic, with its interactions where the problem has them."""
    problem = profile(subject.workload, subject.space, "ggn")
    return of_problem(problem)


def of_problem(problem: Problem) -> Predictor:
    """A problem's own loss as the prediction."""
    return Predictor(
        unary=problem.unary,
        predict=lambda choices: np.array([problem.evaluate(choice).loss for choice in choices]),
        allocate=lambda budget: solved(problem.with_budget("weight_bytes", max=budget)),
        interactions=len(problem.active_interactions),
    )


def solved(problem: Problem) -> IntArray:
    """The best allocation that the solvers for this kind of problem find.

    Raises:
        SolverError: none of them found any.
    """
    names = WITH_INTERACTIONS if problem.active_interactions else ("auto",)
    found = [solution for name in names if (solution := solve(problem, name)).allocation is not None]
    if not found:
        raise SolverError(f"{', '.join(names)} found no allocation under {problem.budgets}")
    best = min(found, key=lambda solution: solution.objective if solution.objective is not None else np.inf)
    assert best.allocation is not None
    return best.allocation.choice.astype(np.int64)


def refined(subject: Subject) -> Predictor:
    """The default statistic, refined at the budget of three bits; its logit sum predicts whole networks."""
    found = refine(
        subject.workload,
        profile(subject.workload, subject.space, "ggn"),
        budgets={"weight_bytes": subject.budget(LABEL)},
    )
    allocation = found.solution.allocation
    assert allocation is not None

    def allocate(budget: int) -> IntArray:
        if budget == subject.budget(LABEL):
            return allocation.choice.astype(np.int64)
        other = refine(subject.workload, found.problem, budgets={"weight_bytes": budget}).solution.allocation
        assert other is not None
        return other.choice.astype(np.int64)

    return Predictor(
        unary=found.problem.scores["kl"],
        predict=found.predictor.predict_many,
        allocate=allocate,
        interactions=len(found.problem.active_interactions),
    )


MAKERS: dict[str, Callable[[Subject], Predictor]] = {"ggn": ggn, "refined": refined}
