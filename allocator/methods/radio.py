"""Radio: bits by reverse water-filling over gradient variance times weight variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class Radio(Method):
    """d_l(B) = n_l G_l² S_l² 4^−B for all layers, cut at one slope; bits rounded to the widths of the space."""

    name: ClassVar[str] = "radio"
    paper: ClassVar[str] = "Radio, arXiv 2505.03031"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "companded quantisers, groups inside a matrix, gradients estimated anew after each step; Gauss–Newton "
        "curvature stands for the gradient variance"
    )
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("rate_distortion"), Spec("weight_error"))
    terms: ClassVar[dict[str, float]] = {"weight_error": 1.0}
    solver: ClassVar[Spec] = Spec("water_filling")
