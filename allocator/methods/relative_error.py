"""How informative is the rank: one relative error of the weight for all layers, as small as fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class RelativeError(Method):
    """The least δ such that every layer's cheapest choice with ‖Δ‖_F ≤ δ ‖W‖_F fits the budget; no data is used.

    The desired-error bisection of the authors' code: least largest relative error.
    """

    name: ClassVar[str] = "relative_error"
    paper: ClassVar[str] = "Schuurmans et al. 2023, arXiv 2305.05318"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = "CP, Tucker and tensor-train choices, and fine-tuning: choices are those of the space"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("weight_error"), Spec("singular_spectrum"))
    terms: ClassVar[dict[str, float]] = {"weight_error_sum": 1.0}
    solver: ClassVar[Spec] = Spec("desired_error")
