"""MoDeGPT: sparsity shared out by the softmax of the blocks' influence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting


@dataclass(frozen=True, kw_only=True)
class Modegpt(Method):
    """Sparsity φ_l in proportion to exp(−s_l/ε), s_l = E[1 − cos(input, output)] of the residual block around a layer.

    For networks with residual blocks.

    Attributes:
        temperature: ε.
    """

    name: ClassVar[str] = "modegpt"
    paper: ClassVar[str] = "MoDeGPT, Lin et al. 2025, arXiv 2408.09632"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = "the decompositions of whole modules (Nyström, CR, SVD): a layer is factored by itself"
    kinds: ClassVar[Kinds] = "ranks"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("block_influence"), Spec("weight_error"))
    terms: ClassVar[dict[str, float]] = {"weight_error": 1.0}
    solver: ClassVar[Spec] = Spec("entropic")
    temperature: float = 0.15

    def allocate(self, setting: Setting) -> Chosen:
        """The closed form at that temperature."""
        from allocator.methods.choosing import solved

        return solved(setting, self.solver, temperature=self.temperature)
