"""Kinds of proof, and the numpy code that checks them; it shares nothing with the solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Multipliers:
    """Prices of the budget rows (parallel to the problem's budgets): ≥ 0 for a max, ≤ 0 for a min.

    Proves the Lagrangian bound Σ_g min_k(value + Σ λ·column) − Σ λ·limit ≤ optimum.
    """

    values: tuple[float, ...]
    kind: ClassVar[str] = "multipliers"


@dataclass(frozen=True)
class Core:
    """Prices under which few choices can still beat the objective; the checker exhausts those. Proves `optimal`."""

    values: tuple[float, ...]
    kind: ClassVar[str] = "core"


@dataclass(frozen=True)
class Threshold:
    """For the least maximum of the loss: no allocation keeps the rows with all unaries below the level reached.

    values: prices of the budget rows for Σ unary at the level, which decides among equal maxima. below: prices
    that exclude the next lower level; none where a single row does. Proves `optimal`.
    """

    values: tuple[float, ...]
    below: tuple[float, ...] = ()
    kind: ClassVar[str] = "threshold"


@dataclass(frozen=True)
class Enumeration:
    """Small enough (at most a million allocations) to look at all of them. Proves `optimal` or `infeasible`."""

    kind: ClassVar[str] = "enumeration"


Certificate = Multipliers | Core | Threshold | Enumeration
