"""How long work says how far it has got."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after every unit of work; ``done`` reaches ``total``.

One that has a method ``resumed(stage, there, total)`` is told by it how many units an earlier run has left.
"""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def resumed(progress: Progress, stage: str, there: int, total: int) -> None:
    """Report the units that an earlier run left; they took no time now, so an estimate must not count them."""
    tell: Progress | None = getattr(progress, "resumed", None)
    if tell is not None:
        tell(stage, there, total)
    progress(stage, there, total)
