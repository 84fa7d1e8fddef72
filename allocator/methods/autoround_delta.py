"""AutoRound's AutoScheme: the absolute first order of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.problem import Problem


@dataclass(frozen=True, kw_only=True)
class AutoroundDelta(Method):
    """Least Σ_l |⟨g_l, Δ_l⟩| by dynamic programming, g the mean gradient of the task's loss."""

    name: ClassVar[str] = "autoround_delta"
    paper: ClassVar[str] = "AutoRound, AutoScheme by delta loss (code, no paper)"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "quantised activations and the tuned rounding; the gradient is that of the float network, not of one with "
        "quantised layers"
    )
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("first_order"),)
    terms: ClassVar[dict[str, float]] = {"first_order": 1.0}
    solver: ClassVar[Spec] = Spec("dynamic_program")

    def stated(self, problem: Problem) -> Problem:
        """The loss is the score without its sign."""
        problem = super().stated(problem)
        spec = {**problem.score_specs["first_order"], "target": "proxy"}
        return problem.with_scores({"first_order_size": np.abs(problem.scores["first_order"])}, None, {
            "first_order_size": spec
        }).with_loss("first_order_size")  # fmt: skip
