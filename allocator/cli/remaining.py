"""How long a stage of work will still take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Remaining:
    """The time left of each stage, if what is left goes as fast as what was done in this run.

    Units that an earlier run left count as done, in no time. A stage begins when the one before it was last heard of.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard = clock()
        self._began = self._heard
        self._stage: str | None = None
        self._there = 0

    def resumed(self, stage: str, there: int) -> None:
        """That many units of a stage are from an earlier run."""
        self._start(stage)
        self._there = there

    def seconds(self, stage: str, done: int, total: int) -> float | None:
        """Until ``done`` reaches ``total``; None while nothing of this stage was done in this run."""
        if stage != self._stage:
            self._start(stage)
        self._heard = self._clock()
        fresh = done - self._there
        return (self._heard - self._began) * (total - done) / fresh if fresh > 0 else None

    def _start(self, stage: str) -> None:
        self._stage, self._began, self._there = stage, self._heard, 0


def in_words(seconds: float | None) -> str:
    """``, about 40 s left``, ``, about 2.5 min left``; nothing where nothing is known."""
    if seconds is None:
        return ""
    unit, size = next(((unit, size) for unit, size in (("s", 1), ("min", 60)) if seconds < 100 * size), ("h", 3600))
    value = seconds / size
    return f", about {value:.{1 if value < 10 and size > 1 else 0}f} {unit} left"
