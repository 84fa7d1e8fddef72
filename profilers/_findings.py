"""All that one statistic found out about a plan: what becomes columns, interactions and stats of the problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from profilers._score import Score


@dataclass(frozen=True, eq=False)
class Basis:
    """Interactions of a score between groups: ½ Σ_i e_i [(Σ_g v_gi)² − Σ_g v_gi²] is added to its sum.

    Attributes:
        score: whose loss it completes; the unary score carries the whole single-choice loss.
        eigenvalues: e [R], any sign.
        vectors: v of every choice, per target [choices, R].
    """

    score: str
    eigenvalues: Tensor
    vectors: Sequence[Tensor]


@dataclass(frozen=True)
class Cost:
    """One more resource: what every choice uses of it, per target, per choice; ``offset`` is use outside the groups."""

    value: Sequence[Sequence[float]]
    unit: str
    aggregate: Literal["sum", "max"] = "sum"
    offset: float = 0


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What `Statistic.measure` returns; all parts may be empty.

    Attributes:
        scores: by name; a profiler's main score bears its own name.
        bases: interactions of these scores.
        stats: numbers per target that closed-form solvers read.
        costs: resources beside bytes, MACs and bit operations.
        notes: plain JSON for people, kept in the problem's ``meta`` under the profiler's name.
    """

    scores: Mapping[str, Score] = field(default_factory=dict)
    bases: Sequence[Basis] = ()
    stats: Mapping[str, Sequence[float]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Gathered:
    """The findings of several statistics on one plan; names are told apart."""

    scores: dict[str, Score] = field(default_factory=dict)
    bases: list[Basis] = field(default_factory=list)
    stats: dict[str, Sequence[float]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    """Score, stat or resource → repr of the profiler."""
