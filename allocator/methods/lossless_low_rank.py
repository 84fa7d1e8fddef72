"""Joint low-rank factorisation, lossless: the ranks of least predicted loss under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from allocator.errors import UsageError
from allocator.methods.lossless import Lossless
from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Spec

if TYPE_CHECKING:
    from allocator.problem import Problem


@dataclass(frozen=True, kw_only=True)
class LosslessLowRank(Lossless):
    """Least Σ_l ⟨G_l, δ_l(r)⟩ with ‖δ_l(r)‖_F ≤ γ ‖W_l‖_F under a budget, δ(r) what truncation to rank r takes away.

    ⟨G, δ(r)⟩ = −Σ_{i>r} σ_i u_iᵀGv_i is one signed number for each singular component, so that all ranks of all
    layers cost one pass over the data. A choice beyond γ is forbidden: there the first order means nothing.

    Attributes:
        gamma: γ, largest relative error of a weight; 1 forbids nothing.
    """

    name: ClassVar[str] = "lossless_low_rank"
    paper: ClassVar[str] = "lossless joint low-rank factorisation, arXiv 2412.06867"
    fidelity: ClassVar[Fidelity] = "derived"
    leaves_out: ClassVar[str] = (
        "the paper's greedy algorithm, whose text was not at hand: programme by the same authors' LLC, solved exactly; "
        "and components kept by score, since low_rank keeps the largest ones (a prefix)"
    )
    kinds: ClassVar[Kinds] = "ranks"
    expansion: ClassVar[str] = "component_slopes"
    terms: ClassVar[dict[str, float]] = {"component_slopes": 1.0}
    solver: ClassVar[Spec] = Spec("exact")
    gamma: float = 0.9

    def statistics(self) -> tuple[Spec, ...]:
        """The slopes with their gaps, and relative errors for γ."""
        if not 0 < self.gamma <= 1:
            raise UsageError(f"gamma={self.gamma} of {self.name}: give the largest relative error, above 0 and up to 1")
        return (*super().statistics(), Spec("weight_error"))

    def stated(self, problem: Problem) -> Problem:
        """Choices beyond γ are forbidden."""
        near = problem.scores["weight_error_relative"] <= self.gamma**2
        return super().stated(problem).replace(allowed=np.asarray(near & problem.free, np.bool_))
