"""Joint low-rank factorisation, compact: the smallest ranks that are predicted to cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.lossless_low_rank import LosslessLowRank
from allocator.statement import Budget

if TYPE_CHECKING:
    from allocator.problem import Problem


@dataclass(frozen=True, kw_only=True)
class CompactLowRank(LosslessLowRank):
    """Fewest bytes with Σ_l (⟨G_l, δ_l⟩ + U_l) ≤ 0, U the measured gap of each choice between slope and loss.

    Needs no budget: it stops where the prediction says that more would cost. Under a budget that lies below, it finds
    nothing.
    """

    name: ClassVar[str] = "compact_low_rank"
    needs_budget: ClassVar[bool] = False

    def stated(self, problem: Problem) -> Problem:
        """Bytes are minimised, and the loss becomes a row."""
        row = Budget(score=self.expansion, max=0, include_remainder=True)
        return super().stated(problem).replace(minimize={"weight_bytes": 1.0}, budgets=(row,))
