"""ACIP: one threshold over all singular components of all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class Acip(Method):
    """Ranks fall by the steps that add least loss, whatever bytes they save, until the budget holds."""

    name: ClassVar[str] = "acip"
    paper: ClassVar[str] = "ACIP, arXiv 2502.01717"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "the learnt score map (masks under an ℓ1 penalty) and the adapters: steps between ranks are scored by "
        "Gauss–Newton curvature"
    )
    kinds: ClassVar[Kinds] = "ranks"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("ggn", {"interactions": False}),)
    terms: ClassVar[dict[str, float]] = {"ggn": 1.0}
    solver: ClassVar[Spec] = Spec("threshold", {"by": "step"})
