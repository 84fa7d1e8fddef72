"""A goal as data, and what is said of it: the figure, whether it is met, and by how much it is missed."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A value of a row on one network, or one instance.

    least, most: what it should be; both where it should be near something.
    """

    row: str
    value: str
    network: str
    what: str
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def asked(self) -> str:
        """As text."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}{self.unit}"
        return f"≤ {self.most:g}{self.unit}" if self.most is not None else f"≥ {self.least:g}{self.unit}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row of the table; met is None where nothing was measured."""

    goal: Goal
    measured: float | None
    met: bool | None
    distance: str

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `HEAD`."""
        shown = "-" if self.measured is None else f"{self.measured:.3g}{self.goal.unit}"
        shown = "never" if self.measured == math.inf else shown
        return self.goal.what, self.goal.network, self.goal.asked, shown, self.distance


HEAD = ("goal", "network", "asked", "measured", "met, or the distance")


def verdict(goal: Goal, value: float | None, reason: str = "run it") -> Verdict:
    """What is said of a measured value; reason: why there is none."""
    if value is None:
        return Verdict(goal=goal, measured=None, met=None, distance=f"not measured: {reason}")
    missed = distance(goal, value)
    return Verdict(goal=goal, measured=value, met=missed is None, distance=missed or "met")


def distance(goal: Goal, value: float) -> str | None:
    """How far a value is from what was asked, None if it is there; ∞ stands for what never came."""
    if goal.most is not None and value == math.inf:
        return "never"
    if goal.most is not None and not value <= goal.most:
        return f"{value - goal.most:.2g}{goal.unit} above{_factor(value, goal.most)}"
    if goal.least is not None and not value >= goal.least:
        return f"{goal.least - value:.2g}{goal.unit} below{_factor(value, goal.least)}"
    return None


def _factor(value: float, limit: float) -> str:
    """The ratio, where it means something: both above 0."""
    if not (limit > 0 and value > 0) and not math.isnan(value):
        return ""
    ratio = value / limit
    return f" ({ratio:.2f}×)" if not ratio < 0.01 else f" ({ratio:.1g}×)"
