"""Compression for Better: bit-widths by a grouped knapsack over what an expansion of the loss predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.lossless import Lossless, upper
from allocator.methods.menus import Kinds, directions
from allocator.methods.method import Fidelity, Spec

if TYPE_CHECKING:
    from allocator.problem import Problem
    from allocator.space import Space


@dataclass(frozen=True, kw_only=True)
class Llc(Lossless):
    """Least Σ (⟨g, Δ⟩ + U): the signed first order of the loss, plus the measured gap U between it and the loss.

    Each width may be rounded to nearest, all down or all up (section 2 of the paper, "sign control": a direction per
    layer such that the expected error opposes the gradient): three choices of equal cost, between which score and gap
    decide, with the real change of each.

    U is |measured − predicted| of each choice alone (equations 5 and 6 of the paper); the knapsack over bit-widths
    is solved by dynamic programming (equation 9). The paper calls an allocation lossless if the first order is below
    0; here that takes a joint measurement, see `Lossless`.

    Errors of one sign add up over layers, which neither score nor gap of a single choice knows: on the digits' network
    the divergence with directions was 8 to 15 times that without, at 11, 14 and 20 % of the bytes.

    Attributes:
        directions: offer both directions beside rounding to nearest, as the paper does; three times as many choices
            to measure.
    """

    name: ClassVar[str] = "llc"
    paper: ClassVar[str] = "LLC: Compression for Better, arXiv 2412.06868"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "quantised activations, and the paper's sensitivity, measured under random noise; expansion and its measured "
        "gap stand in for it"
    )
    kinds: ClassVar[Kinds] = "bits"
    expansion: ClassVar[str] = "first_order"
    terms: ClassVar[dict[str, float]] = {"first_order": 1.0}
    solver: ClassVar[Spec] = Spec("dynamic_program")

    directions: bool = True

    def space(self, space: Space) -> Space:
        """Widths with their directions."""
        space = super().space(space)
        return directions(space) if self.directions else space

    def stated(self, problem: Problem) -> Problem:
        """The loss is the score and its remainder."""
        return upper(super().stated(problem), self.expansion)
