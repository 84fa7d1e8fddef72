"""OMPQ: more bits for layers whose features are unlike those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from allocator.methods.menus import menu_of
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.problem import Problem
    from allocator.space import Space


@dataclass(frozen=True, kw_only=True)
class Ompq(Method):
    """Largest Σ_l b_l · mean_{j ≥ l} θ_j under a budget, θ_l = exp(−β Σ_{j ≠ l} ORM_lj) from the likeness of features.

    Attributes:
        beta: β.
    """

    name: ClassVar[str] = "ompq"
    paper: ClassVar[str] = "OMPQ, Ma et al. 2023, arXiv 2109.07865"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = "quantisation-aware training; the integer program is solved exactly, not rounded"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("orthogonality"), Spec("weight_error"))
    terms: ClassVar[dict[str, float]] = {"weight_error": 1.0}
    beta: float = 1.0

    def space(self, space: Space) -> Space:
        """Bit-widths alone: a layer that is kept has no bits to count."""
        return menu_of(space, "bits", keep=False)

    def stated(self, problem: Problem) -> Problem:
        """The score of b bits is −b times the layer's importance."""
        problem = super().stated(problem)
        theta = np.exp(-self.beta * problem.stats["likeness"])
        later = np.cumsum(theta[::-1])[::-1] / np.arange(len(theta), 0, -1)
        bits = [_bits(choice.action) for group in problem.groups for choice in group.choices]
        column = -np.array(bits) * later[problem.group_of]
        spec = {"unit": "1", "target": "proxy", "profiler": "orthogonality"}
        return problem.with_scores({"bits_by_importance": column}, None, {"bits_by_importance": spec}).with_loss(
            "bits_by_importance"
        )


def _bits(action: Any) -> int:
    """Of a rounded layer; a pinned one has no choice, and any number will do."""
    return int((action or {}).get("bits", 0))
