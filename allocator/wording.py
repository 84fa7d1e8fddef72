"""Prices and amounts in words: "one more MB buys 0.0013 of loss", sizes as people read them."""

from __future__ import annotations

import math

from allocator.problem import Problem
from allocator.statement import Budget, Number

SIZES = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def unit_of(problem: Problem, budget: Budget) -> tuple[str, float]:
    """What a price of the row is quoted for, in words, and its size in the row's own unit.

    Bytes and bits in the largest size that fits ten times into the limit; everything else by the unit.
    """
    if budget.loss:
        return ("unit of Σ (unary/largest)^p" if problem.loss.aggregate == "pnorm" else "unit of loss"), 1.0
    if budget.score is not None:
        return f"unit of {budget.name}", 1.0
    spec = problem.resources[budget.resource or ""]
    if spec.aggregate == "max":
        return f"choice of at least {budget.min}", 1.0
    if spec.unit not in ("byte", "bit"):
        return ("unit" if spec.unit == "1" else spec.unit), 1.0
    per = 8 if spec.unit == "bit" else 1
    limit = max(abs(float(side)) for side in (budget.max, budget.min) if side is not None) / per
    name, size = next(((n, s) for n, s in SIZES if s * 10 <= limit), SIZES[-1])
    return name, float(size * per)


def amount(problem: Problem, budget: Budget, value: Number) -> str:
    """A use or a limit of the row: the number in full, and for bytes and bits its size as people read it."""
    text = repr(value)
    spec = problem.resources[budget.resource] if budget.resource is not None else None
    if spec is None or spec.unit not in ("byte", "bit"):
        return text
    size = float(value) / (8 if spec.unit == "bit" else 1)
    name, unit = next(((n, s) for n, s in SIZES if s <= abs(size)), SIZES[-1])
    return text if unit == 1 else f"{text} ({size / unit:.4g} {name})"


def price(problem: Problem, budget: Budget, value: float | None, per: str) -> str:
    """What a multiplier says: what one more unit of the limit buys."""
    if value is None:
        return "forbids single choices, so it has no price"
    if value == 0:
        return "worth nothing at these prices"
    unit, size = unit_of(problem, budget)
    if value > 0:
        return f"one more {unit} buys {value * size:.3g} of {per}"
    return f"one {unit} less would save {-value * size:.3g} of {per}"


def worth(problem: Problem, budget: Budget, low: float, high: float) -> tuple[float, float]:
    """Ends of an interval of prices per quoted unit; of a row with a min alone as what it costs."""
    _, size = unit_of(problem, budget)
    if budget.max is None:
        low, high = -high, -low
    return low * size, high * size


def between(problem: Problem, budget: Budget, low: float, high: float, per: str) -> str:
    """The prices from low to high: "while one kB is worth between 0.01 and 0.02 of loss"."""
    unit, _ = unit_of(problem, budget)
    low, high = worth(problem, budget, low, high)
    if high == math.inf and low <= 0:
        return f"whatever one {unit} is worth"
    if high == math.inf:
        return f"while one {unit} is worth at least {low:.3g} of {per}"
    if low <= 0:
        return f"while one {unit} is worth at most {high:.3g} of {per}"
    return f"while one {unit} is worth between {low:.3g} and {high:.3g} of {per}"
