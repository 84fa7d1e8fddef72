"""What each kind of compression has to offer: which menus are solved one by one, and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allocator import kinds
from allocator.kinds import BY_INPUTS, JOINT, Choice, Menu, rounded
from allocator.space import Rule, Space

__all__ = ["JOINT", "KINDS", "RECOVERED", "WHOLE", "Menu", "menu", "rounded", "space_of"]

KINDS: Mapping[str, Menu] = {name: menu for name, menu in kinds.KINDS.items() if name != "channels"}
"""Those that are compared: all that can be chosen layer by layer."""
RECOVERED = "joint, recovered"
"""The allocations of `JOINT`, with what is stored beside the codes distilled from the float network afterwards."""
WHOLE = "ranks in float32"
"""Fewer parameters, each as wide as before: nothing but factors."""


def menu(kind: str) -> Menu:
    """The choices of a kind, or of all of them."""
    if kind == WHOLE:
        full: Choice = {"kind": "keep"}
        shares = [k / 20 for k in range(1, 20)]
        return (*({"kind": "low_rank", "fraction": s, "left": full, "right": full, **BY_INPUTS} for s in shares), full)
    return kinds.menu(JOINT if kind == RECOVERED else kind)


def space_of(rules: Sequence[Rule], choices: Menu) -> Space:
    """A menu for all layers but those that some rules leave out."""
    return Space.of_menu(choices, rules=rules)
