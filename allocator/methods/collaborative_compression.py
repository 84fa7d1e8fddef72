"""Collaborative Compression: exponential curves of loss over cost, cut at one slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class CollaborativeCompression(Method):
    """Σ (gradient · Δ)² of each rank fitted by a·exp(−b·cost); all layers end at one slope ν of their curves."""

    name: ClassVar[str] = "collaborative_compression"
    paper: ClassVar[str] = "Collaborative Compression, Li et al. 2021, arXiv 2105.11228"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = "pruned channels, the multi-step heuristic removal, and fine-tuning"
    kinds: ClassVar[Kinds] = "ranks"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("fisher", {"empirical": True}),)
    terms: ClassVar[dict[str, float]] = {"fisher_empirical": 1.0}
    solver: ClassVar[Spec] = Spec("water_filling")
