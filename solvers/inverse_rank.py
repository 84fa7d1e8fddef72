"""Budget by effective rank: the loss of a group falls as its effective rank over the rank that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from solvers._axis import Axis
from solvers._closing import closed
from solvers._level import shares
from solvers._stats import stat


@dataclass(frozen=True, kw_only=True)
class InverseRank:
    """Gives each group cost in proportion to √(effective rank · cost of one rank).

    min Σ R_g / k_g subject to Σ ω_g k_g = budget over ranks k_g: k_g ∝ √(R_g/ω_g), so that the cost ω_g k_g is
    proportional to √(R_g ω_g) (D-Rank, 2025), here within each group's least and largest useful cost. Rounded to
    the choice of nearest cost among those that no other of the group beats, then repaired. The scores are not
    looked at otherwise, and D-Rank's last step, which moves a part of the ranks of queries and keys to the values,
    is left out: groups here have no such roles.

    Stats, both needed: `effective_rank` R_g = exp(−Σ p_i ln p_i) with p_i = σ_i²/Σ σ², σ the singular values of the
    (whitened) weight; `rank_cost` ω_g, what one rank more costs in units of the budget's resource.

    polish: go on by local search from there; what comes out is then the work of the search.
    """

    polish: bool = False

    name: ClassVar[str] = "inverse_rank"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ("effective_rank", "rank_cost")
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Weigh, scale to the budget, round, repair."""
        axis = Axis.of(linearise(problem))
        if axis is None:
            return Answer()
        rank = stat(problem, self.name, "effective_rank", "exponential of the entropy of its spectrum", least=0.0)
        one = stat(problem, self.name, "rank_cost", "cost of one rank more in the budget's resource", least=0.0)
        weight = np.sqrt(rank) * np.sqrt(one)
        target = shares(np.zeros(len(weight)), weight, axis.lo, axis.hi, float(axis.room))
        return closed(axis, axis.nearest(target), limits, polish=self.polish)
