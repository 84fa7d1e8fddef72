"""EvoPress: evolution of whole allocations on the measured divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from allocator import registry
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.methods.forecasting import Extent


@dataclass(frozen=True, kw_only=True)
class Evopress(Method):
    """KL(float ‖ compressed) of the whole network as the fitness; offspring by level switches, selection in stages.

    Nothing is predicted: what is measured on the calibration data is minimised. It begins with the best uniform
    allocation, or where none fits with what the squared error of the weights calls best.

    Attributes:
        generations: rounds of offspring and selection; the paper's script has 150 to 400.
        offspring: in each round; the paper's script has 128.
    """

    name: ClassVar[str] = "evopress"
    paper: ClassVar[str] = "EvoPress, Sieberling et al. 2025, arXiv 2410.14649"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = (
        "choices with compensated errors (GPTQ, SparseGPT); 40 generations of 32 offspring unless told, not 150 of 128"
    )
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("weight_error"),)
    terms: ClassVar[dict[str, float]] = {"weight_error": 1.0}
    solver: ClassVar[Spec] = Spec("evolutionary")
    generations: int = 40
    offspring: int = 32

    def forecast(self, extent: Extent) -> float:
        """Forward passes over each stage's share of the data: what enters a stage of selection is measured in it."""
        from allocator.methods.forecasting import FORWARD
        from allocator.methods.whole_network import FEWEST

        options: Any = registry.make("solvers", self.solver.name, {"offspring": self.offspring})
        entering = [self.offspring, *(kept for kept, _ in options.stages[:-1])]
        least = min(1.0, FEWEST / extent.samples)
        each: float = sum(many * max(share, least) for many, (_, share) in zip(entering, options.stages, strict=True))
        return (self.generations * each + float(options.starts)) * FORWARD

    def allocate(self, setting: Setting) -> Chosen:
        """Evolve; the prediction is the fitness of the winner."""
        from allocator.methods.whole_network import evolved

        return evolved(setting, generations=self.generations, offspring=self.offspring)
