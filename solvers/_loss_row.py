"""A limit on a loss with interactions, beside an objective that may be a resource."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from allocator.evaluation import lower, upper
from allocator.problem import Problem
from allocator.quadratic import Quadratic, quadratic

ROUNDING = 1e-13  # of the size of the loss: what a sum in another order may differ by


@dataclass(frozen=True, eq=False)
class LossRow:
    """lo ≤ loss ≤ hi, limits as enforced.

    stated: the problem, which says what keeps its rows. plain: the loss alone, weight 1. model: the same, with
    remainders where they count. slip: what rounding may hide.
    """

    stated: Problem
    plain: Quadratic
    model: Quadratic
    lo: float
    hi: float
    slip: float

    @property
    def counts_remainders(self) -> bool:
        """Whether the limit is kept with the remainders added, more than the problem asks for."""
        return self.model is not self.plain


def separated(problem: Problem, remainder: bool = False) -> tuple[Quadratic, LossRow | None]:
    """The objective without limits on the loss, and these limits as one row.

    None where there are none, or where they are sums over groups and so already rows of the objective's model.

    Args:
        problem: any whose loss is a sum.
        remainder: add Σ weight·remainder of the taken choices to the loss that a max limits.
    """
    limits = [b for b in problem.budgets if b.loss]
    left_out = np.zeros(problem.choice_count)
    for score, weight in problem.loss.terms.items():
        if remainder and score in problem.remainder:
            left_out += weight * problem.remainder[score]
    counted = bool(left_out.any()) and any(b.max is not None for b in limits)
    if not limits or not (problem.active_interactions or counted):
        return quadratic(problem), None
    rest = problem.replace(budgets=tuple(b for b in problem.budgets if not b.loss))
    plain = model = quadratic(rest.replace(minimize={"loss": 1.0}))
    if counted:
        value = plain.linear.value + left_out
        model = dataclasses.replace(plain, linear=dataclasses.replace(plain.linear, value=value))
    hi = min((float(upper(b.max, False)) for b in limits if b.max is not None), default=math.inf)
    lo = max((float(lower(b.min, False)) for b in limits if b.min is not None), default=-math.inf)
    return quadratic(rest), LossRow(problem, plain, model, lo, hi, ROUNDING * model.size)
