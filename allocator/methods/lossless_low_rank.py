"""Joint low-rank factorisation, lossless: the ranks of least predicted loss under a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from allocator.errors import UsageError
from allocator.methods.lossless import Lossless
from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Spec
from allocator.progress import Progress

if TYPE_CHECKING:
    from allocator.methods.forecasting import Extent
    from allocator.problem import Problem
    from allocator.space import Space
    from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class LosslessLowRank(Lossless):
    """Least Σ_l ⟨G_l, δ_l(r)⟩ with ‖δ_l(r)‖_F ≤ γ ‖W_l‖_F under a budget, δ(r) what truncation to rank r takes away.

    ⟨G, δ(r)⟩ = −Σ_{i>r} σ_i u_iᵀGv_i is one signed number for each singular component, so that all ranks of all
    layers cost one pass over the data. A choice beyond γ is forbidden: there the first order means nothing.

    A component whose slope is below 0 is predicted to lower the loss by being left out, however large it is. So each
    rank is offered twice: with its largest components, and with those that leave out the least slope within γ, which
    are picked on the data that the slopes are measured on and promise more than they keep.

    Attributes:
        components: ``slope`` offers both; ``largest`` the largest alone.
        gamma: γ, largest relative error of a weight; 1 forbids nothing.
    """

    name: ClassVar[str] = "lossless_low_rank"
    paper: ClassVar[str] = "lossless joint low-rank factorisation, arXiv 2412.06867"
    fidelity: ClassVar[Fidelity] = "derived"
    leaves_out: ClassVar[str] = (
        "the paper's greedy algorithm, whose text was not at hand: programme by the same authors' LLC, solved exactly"
    )
    kinds: ClassVar[Kinds] = "ranks"
    expansion: ClassVar[str] = "component_slopes"
    terms: ClassVar[dict[str, float]] = {"component_slopes": 1.0}
    solver: ClassVar[Spec] = Spec("exact")
    gamma: float = 0.9
    components: Literal["slope", "largest"] = "slope"

    def statistics(self) -> tuple[Spec, ...]:
        """The slopes with their gaps, and relative errors for γ."""
        if not 0 < self.gamma <= 1:
            raise UsageError(f"gamma={self.gamma} of {self.name}: give the largest relative error, above 0 and up to 1")
        return (*super().statistics(), Spec("weight_error"))

    def measured_space(self, workload: Workload, space: Space, folder: Path | None, progress: Progress) -> Space:
        """With a choice of components by slope for every rank."""
        from allocator.methods.components import with_picked

        if self.components not in ("slope", "largest"):
            raise UsageError(f"components={self.components!r} of {self.name}: give slope or largest")
        return with_picked(workload, space, self.gamma, folder, progress) if self.components == "slope" else space

    def forecast(self, extent: Extent) -> float:
        """Slopes once more to pick by, and twice the choices."""
        if self.components == "slope":
            ranks = tuple(2 * count for count in extent.choices)
            return super().forecast(replace(extent, choices=ranks)) + 2
        return super().forecast(extent)

    def stated(self, problem: Problem) -> Problem:
        """Choices beyond γ are forbidden."""
        near = problem.scores["weight_error_relative"] <= self.gamma**2
        return super().stated(problem).replace(allowed=np.asarray(near & problem.free, np.bool_))
