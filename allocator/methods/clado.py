"""CLADO: losses of pairs of choices measured, and a quadratic program over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class Clado(Method):
    """Least Σ_a L_a + Σ_{a<b} (L_ab − L_a − L_b): rises of the loss with one and with two choices made, measured.

    Attributes:
        samples: to measure each pair on.
    """

    name: ClassVar[str] = "clado"
    paper: ClassVar[str] = "CLADO, Deng et al. 2023, arXiv 2307.05657"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = (
        "the clipping of negative eigenvalues, which changes the objective: the matrix is taken as measured"
    )
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("measured_pairs"),)
    terms: ClassVar[dict[str, float]] = {"measured_pairs": 1.0}
    interactions: ClassVar[bool] = True
    solver: ClassVar[Spec] = Spec("cvxpy_qp")
    samples: int = 128

    def statistics(self) -> tuple[Spec, ...]:
        """The pairs, on that many samples."""
        return (Spec("measured_pairs", {"samples": self.samples}),)
