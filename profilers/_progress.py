"""How a profiler says how far it has got."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after every unit of work; ``done`` reaches ``total``."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""
