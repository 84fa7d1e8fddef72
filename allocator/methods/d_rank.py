"""D-Rank: ranks in proportion to the root of effective rank over cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class DRank(Method):
    """k_l ∝ √(R_l/ω_l): effective rank R_l of the weight whitened by its inputs, cost ω_l of one rank."""

    name: ClassVar[str] = "d_rank"
    paper: ClassVar[str] = "D-Rank, arXiv 2509.25622"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = "weights that layers share (bases), whitened factors, ranks moved from q and k to v"
    kinds: ClassVar[Kinds] = "ranks"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("singular_spectrum", {"whitened": True}), Spec("weight_error"))
    terms: ClassVar[dict[str, float]] = {"weight_error": 1.0}
    solver: ClassVar[Spec] = Spec("inverse_rank")
