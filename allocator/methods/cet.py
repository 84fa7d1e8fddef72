"""Compression Error Theory: errors kept out of the few directions in which the loss is steep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from allocator.errors import UsageError
from allocator.methods.curvature import dropped, uphill
from allocator.methods.method import Fidelity, Method, Spec
from allocator.statement import Loss

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Cet(Method):
    """½ Σ_i λ_i (Σ_l ⟨U_l,i, Δ_l⟩)² + ½ Σ_l μ_l ‖Δ_l‖²: the loss in the steep subspace of all layers together.

    Projections of layers add before they are squared, so that errors may cancel along a steep axis: a quadratic
    program in the choices, with convex relaxations, rounding and local search.

    The paper expands gᵀe + ½ eᵀHe with H of any sign. Minimised as it stands, such a model promises what it cannot
    hold: along λ < 0 the loss falls without end, and g of a trained network is the noise of the sample. The proven
    optimum of a signed model at 3 bits, a predicted gain of .036 nat, was measured on a ResNet at 1.49 nat of
    divergence. So both parts are off unless asked for.

    Attributes:
        count: eigenpairs of the Hessian.
        probes: per layer for μ, the curvature outside the subspace; 0 leaves it out.
        negative: ``drop``: axes with λ < 0 count as flat; ``keep``: as they are.
        linear: add the signed first order ⟨g, Δ⟩.
    """

    name: ClassVar[str] = "cet"
    paper: ClassVar[str] = "Compression Error Theory, arXiv 2502.15802"
    fidelity: ClassVar[Fidelity] = "derived"
    leaves_out: ClassVar[str] = (
        "the paper's own algorithm, whose text was not at hand: this is the quadratic program that its abstract "
        "implies, without the linear term and the axes of negative curvature unless told"
    )
    terms: ClassVar[dict[str, float]] = {"lanczos": 1.0}
    interactions: ClassVar[bool] = True
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("lanczos"),)
    solver: ClassVar[Spec] = Spec("cvxpy_subspace")
    count: int = 8
    probes: int = 16
    negative: Literal["drop", "keep"] = "drop"
    linear: bool = False

    def __post_init__(self) -> None:
        if self.negative not in ("drop", "keep"):
            raise UsageError(f"negative={self.negative!r} of cet: give drop or keep")

    def statistics(self) -> tuple[Spec, ...]:
        """Lanczos with these options, and the slopes if they count."""
        found = Spec("lanczos", {"count": self.count, "probes": self.probes})
        return (found, Spec("first_order")) if self.linear else (found,)

    def stated(self, problem: Problem) -> Problem:
        """The expansion, as much of it as counts."""
        if self.linear and "first_order" not in problem.scores:
            raise UsageError("cet[linear=true] needs the score 'first_order': profile with first_order as well")
        problem = super().stated(problem)
        if self.negative == "drop":
            problem = uphill(problem, "lanczos", self.name)
        return problem.replace(loss=Loss({"lanczos": 1.0, "first_order": 1.0})) if self.linear else problem

    def allocate(self, setting: Setting) -> Chosen:
        """Solve, and say what was dropped and what the first order promises."""
        chosen = super().allocate(setting)
        words = []
        if self.negative == "drop":
            share = dropped(setting.problem, self.name)
            words.append(f"{100 * share:.2g} % of the curvature found points downhill and was dropped")
        if self.linear and chosen.solution.allocation is not None:
            slope = float(setting.problem.scores["first_order"][chosen.solution.allocation.rows()].sum())
            words.append(f"{slope:.3g} nat of the prediction are first order")
        return replace(chosen, said="; ".join(words))
