"""Kinds of proof, and the numpy code that checks them; it shares nothing with the solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.certificate_dual import Dual, DualTree
from allocator.certificate_tree import Tree


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


@dataclass(frozen=True)
class Leaf:
    """A case whose bound or core search shows nothing better: prices of the budget rows."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class ByRow:
    """Two cases that cover everything: a row is taken, or it is not."""

    row: int
    taken: Case
    other: Case


@dataclass(frozen=True)
class ByLabel:
    """Two cases: a label (its code) occurs in the groups of a max_distinct (its number), or it does not."""

    coupling: int
    code: int
    used: Case
    unused: Case


Case = Leaf | ByRow | ByLabel


@dataclass(frozen=True)
class Cases:
    """A cover of the allocations that keep the couplings; the checker propagates the couplings in each case.

    values: prices of the budget rows for the bound without couplings.
    """

    root: Case
    values: tuple[float, ...] = ()
    kind: ClassVar[str] = "tree"


Certificate = Multipliers | Core | Enumeration | Cases | Threshold | Tree | Dual | DualTree
