"""What each kind of compression has to offer: which menus are solved one by one, and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allocator import kinds
from allocator.kinds import JOINT, Choice, Menu, rounded
from allocator.space import Rule, Space

__all__ = [
    "EMBEDDING", "JOINT", "KINDS", "RECOVERED", "WHOLE", "WHOLE_RECOVERED", "Menu", "menu", "rounded", "space_of",
]  # fmt: skip

KINDS: Mapping[str, Menu] = {name: menu for name, menu in kinds.KINDS.items() if name != "channels"}
"""Those that are compared: all that can be chosen layer by layer."""
RECOVERED = "joint, recovered"
"""The allocations of `JOINT`, with what is stored beside the codes distilled from the float network afterwards."""
WHOLE = "ranks in float32"
"""Fewer parameters, each as wide as before: nothing but factors, and what corrects them."""
WHOLE_RECOVERED = "ranks in float32, recovered"

EMBEDDING: Menu = (
    *({"kind": "quantize", "bits": bits, "scheme": "symmetric", "method": "mse"} for bits in (8, 7, 6)),
    *(rounded(bits) for bits in (6, 5, 4)),
)
"""Of an embedding that is the head as well: integers, compensated for the head's inputs at 6 bits and fewer. The first
is the 8 bits that come with every menu, as a table has them."""


def menu(kind: str, fast: bool = False) -> Menu:
    """The choices of a kind, or of all of them; ``fast``: without those that take long on large layers."""
    if kind in (WHOLE, WHOLE_RECOVERED):
        full: Choice = {"kind": "keep"}
        factors: list[Choice] = [
            {"kind": "low_rank", "fraction": k / 20, "left": full, "right": full, "weighting": weighting}
            for weighting in ("input", "fisher")
            for k in range(1, 20)
        ]
        return (*factors, *({"kind": "corrected", "action": one, "variance": True} for one in factors), full)
    return kinds.menu(JOINT if kind == RECOVERED else kind, fast=fast)


def space_of(rules: Sequence[Rule], choices: Menu, apart: Mapping[str, Menu]) -> Space:
    """A menu for all layers but those that some rules leave out, and those with a menu of their own."""
    own = (Rule(modules=pattern, choices=menu) for pattern, menu in apart.items())
    return Space((*own, *Space.of_menu(choices, rules=rules).rules))
