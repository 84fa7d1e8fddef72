"""ModelOpt's AutoQuantize by divergence: the largest measured KL of a layer as small as fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec


@dataclass(frozen=True, kw_only=True)
class ModeloptKl(Method):
    """KL(float ‖ changed) measured for each choice alone; bisection on a threshold that no layer may exceed."""

    name: ClassVar[str] = "modelopt_kl"
    paper: ClassVar[str] = "NVIDIA ModelOpt, auto_quantize by KL divergence (code, no paper)"
    fidelity: ClassVar[Fidelity] = "paper"
    leaves_out: ClassVar[str] = "quantised activations; the threshold is the least that fits, not the last one tried"
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("kl"),)
    terms: ClassVar[dict[str, float]] = {"kl": 1.0}
    couple: ClassVar[tuple[str, ...]] = ("fused",)
    solver: ClassVar[Spec] = Spec("bottleneck_bisection", {"fill": False})
