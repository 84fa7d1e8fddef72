"""ModelOpt's AutoQuantize by gradients: the Fisher diagonal at each layer's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.problem import Problem
    from allocator.statement import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class ModeloptGradient(Method):
    """Least Σ_l Σ (∂L/∂y_l)² (Δy_l)², made to fall with the cost of a choice; layers that fuse take one format."""

    name: ClassVar[str] = "modelopt_gradient"
    paper: ClassVar[str] = "NVIDIA ModelOpt, auto_quantize by gradient (code, no paper)"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = "quantised activations, scores taken at another module, lower bounds on the size"
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("output_fisher"),)
    terms: ClassVar[dict[str, float]] = {"output_fisher": 1.0}
    couple: ClassVar[tuple[str, ...]] = ("fused",)
    solver: ClassVar[Spec] = Spec("scipy_milp")

    def stated(self, problem: Problem) -> Problem:
        """Scores forced down: no dearer choice of a layer scores worse than a cheaper one."""
        problem = super().stated(problem)
        column = falling(problem.scores["output_fisher"], problem.cost("weight_bytes"), problem.indptr)
        return problem.with_scores({"output_fisher": column}, None, dict(problem.score_specs))


def falling(score: FloatArray, cost: IntArray | FloatArray, indptr: IntArray) -> FloatArray:
    """Per group the least score of all choices that cost no more [N]."""
    found = score.copy()
    for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        order = start + np.argsort(cost[start:stop], kind="stable")
        found[order] = np.minimum.accumulate(score[order])
    return found
