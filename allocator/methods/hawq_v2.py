"""HAWQ-V2: the average Hessian trace of a layer times its squared rounding error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class HawqV2(Method):
    """Least Σ_l (tr H_l / n_l) ‖Δ_l‖² under a budget, traces by random probes."""

    name: ClassVar[str] = "hawq_v2"
    paper: ClassVar[str] = "HAWQ-V2, Dong et al. 2020, arXiv 1911.03852"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = "traces of activations, and fine-tuning"
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("hessian_trace"),)
    terms: ClassVar[dict[str, float]] = {"hessian_trace": 1.0}
    solver: ClassVar[Spec] = Spec("exact")
