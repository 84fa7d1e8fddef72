"""The parts of a problem beside its columns: loss, budgets, couplings, interactions (names resolved to indices)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Number = int | float
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Aggregate = Literal["sum", "max", "pnorm"]


@dataclass(frozen=True)
class Resource:
    """What a choice uses: its unit, how the groups add up, and the use outside all groups."""

    unit: str = "1"
    aggregate: Literal["sum", "max"] = "sum"
    offset: Number = 0


@dataclass(frozen=True)
class Loss:
    """What the scores sum to: unary = Σ_terms weight·(score + stderr_weight·stderr), aggregated over groups."""

    terms: Mapping[str, float]
    aggregate: Aggregate = "sum"
    p: float | None = None
    stderr_weight: float = 0.0


@dataclass(frozen=True)
class Budget:
    """One row: a limit on a resource, on the loss, or on the sum of a score; `tags` scopes it to groups having any."""

    resource: str | None = None
    max: Number | None = None
    min: Number | None = None
    tags: tuple[str, ...] | None = None
    loss: bool = False
    score: str | None = None
    include_remainder: bool = False

    @property
    def name(self) -> str:
        """What is limited, in words."""
        what = "loss" if self.loss else self.resource or f"score {self.score}"
        return f"{what} of [{', '.join(self.tags)}]" if self.tags is not None else str(what)


@dataclass(frozen=True)
class SameChoice:
    """All these groups take choices of one common label."""

    groups: tuple[int, ...]


@dataclass(frozen=True)
class MaxDistinct:
    """At most `count` different labels over the groups, those in `ignore` not counted."""

    count: int
    groups: tuple[int, ...]
    ignore: frozenset[str] = frozenset()
    tags: tuple[str, ...] | None = None
    everywhere: bool = False


@dataclass(frozen=True)
class Cardinality:
    """At most, at least or exactly `count` of these choices (rows of the columns) are taken."""

    kind: Literal["at_most", "at_least", "exactly"]
    rows: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Implies:
    """If the first choice is taken, so is the second (rows of the columns)."""

    if_row: int
    then_row: int


Coupling = SameChoice | MaxDistinct | Cardinality | Implies


@dataclass(frozen=True, eq=False)
class Pairs:
    """Loss between two choices of different groups: `value[m]` when both rows `index[m]` are taken."""

    score: str
    index: IntArray
    value: FloatArray


@dataclass(frozen=True, eq=False)
class Basis:
    """Low-rank quadratic loss: ½ Σ_i e_i [(Σ_g v_gi)² − Σ_g v_gi²] over the taken rows of `vectors` [N, R]."""

    score: str
    eigenvalues: FloatArray
    vectors: NDArray[np.float64] | NDArray[np.float32]


Interaction = Pairs | Basis


@dataclass(frozen=True)
class Notes:
    """What no solver reads: provenance, generator, meta and x- keys, kept for round trips."""

    generator: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    meta: Any = None
    requires: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
