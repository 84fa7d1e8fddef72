"""CLADO: losses of pairs of choices measured, and a quadratic program over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.curvature import clipped, dropped
from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Clado(Method):
    """Least ½ xᵀGx, G of the rises of the loss with one and with two choices made, measured.

    G_aa = 2 L_a, G_ab = L_ab − L_a − L_b between layers, 0 within one; as in the authors' code its negative eigenvalues
    are set to 0, which makes the program convex and changes its value on allocations too: the loss of a pair is no
    longer the measured one, and never less.

    Attributes:
        samples: to measure each pair on.
        clip: as the paper does; False takes the matrix as measured.
    """

    name: ClassVar[str] = "clado"
    paper: ClassVar[str] = "CLADO, Deng et al. 2023, arXiv 2307.05657"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = "nothing of the rule; the program is solved by another solver"
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("measured_pairs"),)
    terms: ClassVar[dict[str, float]] = {"measured_pairs": 1.0}
    interactions: ClassVar[bool] = True
    solver: ClassVar[Spec] = Spec("quadratic")
    samples: int = 128
    clip: bool = True

    def statistics(self) -> tuple[Spec, ...]:
        """The pairs, on that many samples."""
        return (Spec("measured_pairs", {"samples": self.samples}),)

    def stated(self, problem: Problem) -> Problem:
        """The clipped matrix as scores and a basis, beside the measured one."""
        problem = super().stated(problem)
        return clipped(problem, "measured_pairs", "measured_pairs_clipped", self.name) if self.clip else problem

    def allocate(self, setting: Setting) -> Chosen:
        """Solve, and say how much was clipped and what the measured matrix gives for the same allocation."""
        chosen = super().allocate(setting)
        if not self.clip or chosen.solution.allocation is None:
            return chosen
        as_measured = setting.problem.with_loss("measured_pairs").evaluate(chosen.solution.allocation.choice).loss
        share = dropped(setting.problem, self.name)
        said = f"{100 * share:.2g} % of the eigenvalues' sum clipped; {as_measured:.3g} nat by the matrix as measured"
        return replace(chosen, said=said)
