"""A score by its name, for methods that may look at another score than what the problem minimises."""

from __future__ import annotations

from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.statement import FloatArray


def named_score(problem: Problem, solver: str, score: str, otherwise: FloatArray) -> FloatArray:
    """The score [N] of that name; `otherwise` where the name is empty.

    Raises:
        UsageError: there is none of that name; the text lists those there are.
    """
    if not score:
        return otherwise
    if score not in problem.scores:
        known = ", ".join(sorted(problem.scores))
        raise UsageError(f"{solver}: score={score!r} is no score of this problem; it has {known}")
    return problem.scores[score]
