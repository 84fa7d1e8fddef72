"""HAWQ-V3: an integer program over two bit-widths per layer, residual layers joined."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from allocator.errors import UsageError
from allocator.methods.hawq_v2 import HawqV2
from allocator.methods.menus import menu_of
from allocator.methods.method import Spec

if TYPE_CHECKING:
    from allocator.space import Space


@dataclass(frozen=True, kw_only=True)
class HawqV3(HawqV2):
    """The sensitivities of HAWQ-V2; each layer takes one of two widths, layers added together the same one.

    Attributes:
        bits: the two widths, with + between.
    """

    name: ClassVar[str] = "hawq_v3"
    paper: ClassVar[str] = "HAWQ-V3, Yao et al. 2021, arXiv 2011.10680"
    leaves_out: ClassVar[str] = "integer-only scales, distillation and fine-tuning"
    couple: ClassVar[tuple[str, ...]] = ("residual",)
    solver: ClassVar[Spec] = Spec("scipy_milp")
    bits: str = "4+8"

    def space(self, space: Space) -> Space:
        """Two widths in the space's manner of rounding."""
        widths = [int(part) for part in re.split("[+,]", self.bits) if part.strip().isdecimal()]
        if len(widths) != 2:
            raise UsageError(f"bits={self.bits!r} of hawq_v3: give two widths, such as 4+8")
        return menu_of(space, "bits", widths)
