"""How much random testing is done: ALLOCATOR_TEST_DEPTH multiplies every count (1 unless set)."""

from __future__ import annotations

import os

DEPTH = int(os.environ.get("ALLOCATOR_TEST_DEPTH", "1"))


def times(count: int) -> int:
    """That many at depth 1."""
    return count * DEPTH
