"""How long work says how far it has got."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeAlias, TypeVar

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after every unit of work; ``done`` reaches ``total``.

One that has a method ``resumed(stage, there, total)`` is told by it how many units an earlier run has left.
"""


_Unit = TypeVar("_Unit")


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def resumed(progress: Progress, stage: str, there: int, total: int) -> None:
    """Report the units that an earlier run left; they took no time now, so an estimate must not count them."""
    tell: Progress | None = getattr(progress, "resumed", None)
    if tell is not None:
        tell(stage, there, total)
    progress(stage, there, total)


def told(progress: Progress, stage: str, units: Iterable[_Unit]) -> Iterator[_Unit]:
    """The units, one after the other, and a word when each is done; none where nobody knows how many there are."""
    total = len(units) if isinstance(units, Sized) else None
    for done, unit in enumerate(units, 1):
        yield unit
        if total is not None:
            progress(stage, done, total)
