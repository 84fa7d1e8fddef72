"""The best allocation that a search has seen, checked by the core's own arithmetic before it counts."""

from __future__ import annotations

from typing import Any

from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.solution import Answer
from allocator.statement import IntArray

Score = tuple[float, float]


class Incumbent:
    """`rows` [G] and their `score`: (objective, Σ unary where that breaks ties), or (fitness, 0)."""

    def __init__(self, problem: Problem, limits: Limits, rows: IntArray, score: Score | None = None) -> None:
        self.problem = problem
        self.limits = limits
        self.rows = rows
        self.score = self.exact(rows) if score is None else score
        self.tell()

    def exact(self, rows: IntArray) -> Score:
        """Objective and tie of an allocation, as the core computes them."""
        outcome = self.problem.evaluate(rows - self.problem.indptr[:-1])
        return outcome.objective, outcome.tie

    def offer(self, rows: IntArray, fitness: float | None = None) -> bool:
        """Keep an allocation if it is feasible and better, and report it; without `fitness` by the objective.

        Returns:
            Whether it is feasible.
        """
        outcome = self.problem.evaluate(rows - self.problem.indptr[:-1])
        score = (outcome.objective, outcome.tie) if fitness is None else (fitness, 0.0)
        if not outcome.feasible:
            return False
        if score < self.score:
            self.rows, self.score = rows.copy(), score
            self.tell()
        return True

    def tell(self) -> None:
        """Call the caller's report."""
        if self.limits.report is not None:
            self.limits.report(self.rows - self.problem.indptr[:-1])

    def answer(self, limit: str | None, statistics: dict[str, Any]) -> Answer:
        """The answer with this allocation; `fitness` among the statistics is the objective where none was given."""
        return Answer(
            choice=self.rows - self.problem.indptr[:-1],
            limit=limit,
            statistics={"fitness": self.score[0], **statistics},
        )
