"""Compression Error Theory: errors kept out of the few directions in which the loss is steep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class Cet(Method):
    """½ Σ_i λ_i (Σ_l ⟨U_l,i, Δ_l⟩)² + ½ Σ_l μ_l ‖Δ_l‖²: the loss in the steep subspace of all layers together.

    Projections of layers add before they are squared, so that errors may cancel along a steep axis: a quadratic
    program in the choices, with a convex relaxation, rounding and local search.

    Attributes:
        count: eigenpairs of the Hessian.
        probes: per layer for μ, the curvature outside the subspace; 0 leaves it out.
    """

    name: ClassVar[str] = "cet"
    paper: ClassVar[str] = "Compression Error Theory, arXiv 2502.15802"
    fidelity: ClassVar[Fidelity] = "derived"
    leaves_out: ClassVar[str] = (
        "the paper's own algorithm, whose text was not at hand: this is the quadratic program that its abstract "
        "implies, without the linear term"
    )
    terms: ClassVar[dict[str, float]] = {"lanczos": 1.0}
    interactions: ClassVar[bool] = True
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("lanczos"),)
    solver: ClassVar[Spec] = Spec("cvxpy_qp")
    count: int = 8
    probes: int = 16

    def statistics(self) -> tuple[Spec, ...]:
        """Lanczos with these options."""
        return (Spec("lanczos", {"count": self.count, "probes": self.probes}),)
