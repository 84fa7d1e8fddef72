"""Choices of different layers that are alike: one width of rounding, one kind of anything else."""

from __future__ import annotations

from allocator.actions import Quantize
from allocator.space import MenuItem


def family(item: MenuItem) -> str:
    """``quantize 4`` for rounding to 4 bits, else the kind of the action."""
    return f"quantize {item.action.bits}" if isinstance(item.action, Quantize) else item.action.kind
