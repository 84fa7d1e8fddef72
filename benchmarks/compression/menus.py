"""What each kind of compression has to offer: which menus are solved one by one, and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allocator import kinds
from allocator.kinds import JOINT, Menu, rounded
from allocator.space import Rule, Space

__all__ = ["JOINT", "KINDS", "Menu", "menu", "rounded", "space_of"]

KINDS: Mapping[str, Menu] = {name: menu for name, menu in kinds.KINDS.items() if name != "channels"}
"""Those that are compared: all that can be chosen layer by layer."""


def menu(kind: str) -> Menu:
    """The choices of a kind, or of all of them."""
    return kinds.menu(kind)


def space_of(rules: Sequence[Rule], choices: Menu) -> Space:
    """A menu for all layers but those that some rules leave out."""
    return Space.of_menu(choices, rules=rules)
