"""Choices of different layers that are alike: one width of rounding, one kind of anything else."""

from __future__ import annotations

from allocator.actions import NumberFormat, Quantize
from allocator.menu_items import MenuItem


def family(item: MenuItem) -> str:
    """``quantize 4`` for rounding to 4 bits, ``number_format nf4``, else the kind of the action."""
    if isinstance(item.action, NumberFormat):
        return f"number_format {item.action.format}"
    return f"quantize {item.action.bits}" if isinstance(item.action, Quantize) else item.action.kind
