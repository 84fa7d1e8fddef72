"""What a problem file predicts for an allocation: each score as a sum, and with its interactions where it has any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from allocator.problem import Problem
from allocator.statement import FloatArray, IntArray, Loss

WITH_INTERACTIONS = "with interactions"


@dataclass(frozen=True, eq=False)
class Predictor:
    """One score of a problem as a prediction of the measured loss.

    Attributes:
        name: the score's; with ``" with interactions"`` where these are counted.
        score: the score.
        problem: the problem whose loss is the score alone, summed, without penalties for standard errors.
        interactions: whether those of the score are counted.
        in_nats: whether the score claims to be the loss itself (its target is ``kl``, in nats); a number that only
            ranks has no size to be held against.
    """

    name: str
    score: str
    problem: Problem = field(repr=False)
    interactions: bool = False
    in_nats: bool = False

    def single(self, rows: IntArray) -> FloatArray:
        """Prediction where one group takes a row and the others stay as they are: the score; interactions are 0."""
        return self.problem.scores[self.score][rows]

    def whole(self, rows: Sequence[IntArray]) -> FloatArray:
        """Prediction for whole allocations, each the taken row of every group [G]."""
        first = self.problem.indptr[:-1]
        return np.array([self.problem.evaluate(taken - first).loss for taken in rows], np.float64)


def predictors(problem: Problem) -> list[Predictor]:
    """Every score as a plain sum; after it, where the file has interactions of that score, the same with them."""
    found: list[Predictor] = []
    for score in problem.scores:
        spec = problem.score_specs.get(score, {})
        nats = spec.get("target") == "kl" and spec.get("unit") == "nat"
        bare = problem.replace(loss=Loss({score: 1.0}), interactions=(), budgets=(), minimize={"loss": 1.0})
        found.append(Predictor(score, score, bare, in_nats=nats))
        own = tuple(part for part in problem.interactions if part.score == score)
        if own:
            found.append(
                Predictor(f"{score} {WITH_INTERACTIONS}", score, bare.replace(interactions=own), True, in_nats=nats)
            )
    return found
