"""One relative error for all groups: each takes its cheapest choice within it, and it is as small as fits."""

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
from solvers._stats import has_any, stat


@dataclass(frozen=True, kw_only=True)
class DesiredError:
    """The least relative error δ such that the cheapest choices of relative error at most δ fit the budget.

    The double bisection of tensor decomposition (Schuurmans et al., ICLR 2023): inside over the ranks of a layer
    until a desired error is met, outside over that error until the parameters are met. Over finitely many choices
    both ends are exact. The relative error of a choice is its score over the group's size; the budget that is left
    at δ is not spent. Then repaired where there are several rows.

    Stat, optional, for all groups or none: `norm`, the score of losing the group altogether (for a weight error,
    the norm of the weight in the units of the score). Without it a group's size is its largest |score|, which is
    the same thing where its worst choice keeps next to nothing; a score that is relative already needs norm 1.

    score: name of the score that is the error; empty for the loss.
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    score: str = ""
    polish: bool = False

    name: ClassVar[str] = "desired_error"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss", "max_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ("norm",)
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Relative errors, the least that fits, repair."""
        axis = Axis.of(linearise(problem, cap=np.inf if lexicographic(problem) else None))
        if axis is None:
            return Answer()
        error = relative(problem, named_score(problem, self.name, self.score, problem.unary))
        rows, level = least_cut(axis, error, limits)
        return closed(axis, rows, limits, polish=self.polish, statistics={"relative_error": level})


def relative(problem: Problem, score: FloatArray) -> FloatArray:
    """The score [N] over the size of its group; 0 throughout a group of size 0."""
    if has_any(problem, "norm"):
        size = stat(problem, DesiredError.name, "norm", "score of losing the group altogether", least=0.0)
    else:
        size = np.maximum.reduceat(np.abs(score), problem.indptr[:-1])
    spread = size[problem.group_of]
    return np.asarray(np.where(spread > 0, score / np.where(spread > 0, spread, 1.0), 0.0))
