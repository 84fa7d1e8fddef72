"""One threshold on one score over all choices of all groups decides every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.evaluation import lexicographic
from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray
from solvers._axis import Axis
from solvers._closing import closed
from solvers._cut import least_cut
from solvers._scores import named_score

KINDS = ("step", "level")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """All choices in one score map: each group goes down to its cheapest choice below one threshold, as low as fits.

    by="step" ranks the steps from a choice to the next cheaper one by the score that they add, and a group goes
    down until a step is above the threshold: components are dropped in the order of a global score, not of score
    per cost (ACIP, 2025). Steps are those of the choices that no other of the group beats in cost and loss.
    by="level" ranks the choices by the score itself: a global cut, each group takes its cheapest choice below it
    (ASVD, 2023). A score map learnt elsewhere, such as ACIP's, is the score of its choices with by="level": for
    each choice the largest number among the components that it drops. The budget left at the threshold is not
    spent. Then repaired where there are several rows.

    score: name of the score that is ranked; empty for the loss (its p-th power under a p-norm).
    by: "step" or "level".
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    score: str = ""
    by: str = "step"
    polish: bool = False

    name: ClassVar[str] = "threshold"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss", "max_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.by not in KINDS:
            raise ValueError(f"by={self.by!r}: give {' or '.join(KINDS)}")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One score map, the least threshold that fits, repair."""
        axis = Axis.of(linearise(problem, cap=np.inf if lexicographic(problem) else None))
        if axis is None:
            return Answer()
        score = named_score(problem, self.name, self.score, axis.linear.value)
        rows, cut = least_cut(axis, steps(axis, score) if self.by == "step" else score, limits)
        return closed(axis, rows, limits, polish=self.polish, statistics={"threshold": cut})


def steps(axis: Axis, score: FloatArray) -> FloatArray:
    """For each choice [N] of the front the largest step on the way down to it, −∞ for the best one; ∞ off the front."""
    front, starts = axis.front, axis.front_starts
    added = score[front]
    added[:-1] -= score[front[1:]]
    last = np.append(starts[1:], len(front)) - 1
    added[last] = -np.inf
    groups = np.arange(len(starts))
    for k in range(1, int((last - starts).max()) + 1):
        groups = groups[last[groups] - k >= starts[groups]]
        at = last[groups] - k
        added[at] = np.maximum(added[at], added[at + 1])
    found = np.full(len(score), np.inf)
    found[front] = added
    return found
