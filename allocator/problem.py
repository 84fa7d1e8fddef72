"""The problem: groups of choices in columns, a loss, budgets, couplings and interactions.

Columns are the truth: choices of all groups stand one after another, group g owns rows
`indptr[g]:indptr[g+1]`, and every score and cost is one array over the rows. `Group` and `Choice`
are views made on demand. Arrays are read-only and validated once, on construction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.blocks import pieces
from allocator.names import Coded, Names, Ragged, encode
from allocator.statement import (
    BoolArray,
    Budget,
    Coupling,
    FloatArray,
    IntArray,
    Interaction,
    Loss,
    Notes,
    Number,
    Pairs,
    Resource,
)

if TYPE_CHECKING:
    from allocator.evaluation import Outcome
    from allocator.views import Group


DEPEND_ON_BUDGETS = ("features", "warnings")  # of what is worked out once for each problem


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """An allocation problem, version 1 of the format; build it with `load_problem`, `from_rows` or `from_arrays`.

    Shapes: G groups, N choices in all. `scores`, `stderr`, `remainder`, `costs`: name → [N];
    `allowed` [N]; `weights` [G], −1 where unknown; `pins` and couplings hold indices.
    Every score is minimised and may be negative; a cost column is int64 where the file's numbers were
    integers. Raises `ProblemError` naming the first offending places.
    """

    indptr: IntArray
    scores: Mapping[str, FloatArray]
    costs: Mapping[str, IntArray | FloatArray]
    group_names: Names
    choice_names: Coded
    loss: Loss
    labels: Coded | None = None
    stderr: Mapping[str, FloatArray] = field(default_factory=dict)
    remainder: Mapping[str, FloatArray] = field(default_factory=dict)
    allowed: BoolArray | None = None
    weights: IntArray | None = None
    action_code: NDArray[np.int32] | None = None
    action_table: tuple[Mapping[str, Any], ...] = ()
    tags: Ragged | None = None
    modules: Ragged | None = None
    stats: Mapping[str, FloatArray] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    score_specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    minimize: Mapping[str, float] = field(default_factory=lambda: {"loss": 1.0})
    budgets: tuple[Budget, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    pins: Mapping[int, int] = field(default_factory=dict)
    interactions: tuple[Interaction, ...] = ()
    reference: str | Mapping[str, str] | None = None
    notes: Notes = field(default_factory=Notes)
    file_sha256: str | None = None

    def __post_init__(self) -> None:
        from allocator.validation import validate

        object.__setattr__(self, "resources", {r: self.resources.get(r, Resource()) for r in self.costs})
        object.__setattr__(self, "score_specs", {s: self.score_specs.get(s, {}) for s in self.scores})
        for array in self._arrays():
            array.setflags(write=False)
        validate(self)

    def _arrays(self) -> Iterator[NDArray[Any]]:
        yield self.indptr
        for columns in (self.scores, self.costs, self.stderr, self.remainder, self.stats):
            yield from columns.values()
        for optional in (self.allowed, self.weights, self.action_code):
            if optional is not None:
                yield optional
        for part in self.interactions:
            yield from (part.index, part.value) if isinstance(part, Pairs) else (part.eigenvalues, part.vectors)

    # -- shape ---------------------------------------------------------------------------------------------------

    @property
    def group_count(self) -> int:
        """G."""
        return len(self.indptr) - 1

    @property
    def choice_count(self) -> int:
        """N, choices of all groups together."""
        return int(self.indptr[-1])

    @cached_property
    def sizes(self) -> IntArray:
        """Choices per group [G]."""
        return np.diff(self.indptr)

    @cached_property
    def width(self) -> int | None:
        """Choices per group where all groups have equally many."""
        width = int(self.indptr[1])
        return width if bool((self.sizes == width).all()) else None

    @cached_property
    def group_of(self) -> IntArray:
        """Group of each choice [N]."""
        return np.repeat(np.arange(self.group_count), self.sizes)

    @property
    def places(self) -> IntArray:
        """Place of each choice within its group [N]."""
        return np.arange(self.choice_count) - np.repeat(self.indptr[:-1], self.sizes)

    @cached_property
    def free(self) -> BoolArray:
        """Choices that may be taken [N]: allowed, and not against a pin."""
        if self.allowed is not None and not self.pins:
            return self.allowed
        mask = np.ones(self.choice_count, bool) if self.allowed is None else self.allowed.copy()
        for group, row in self.pins.items():
            kept = bool(mask[row])
            mask[self.indptr[group] : self.indptr[group + 1]] = False
            mask[row] = kept
        mask.setflags(write=False)
        return mask

    @cached_property
    def label_codes(self) -> Coded:
        """Label of each choice with equal strings under equal codes; a choice without label uses its name."""
        names = self.choice_names.resolved(self.places)
        if self.labels is None:
            return names
        known = {s: i for i, s in enumerate(names.table)}
        table = list(names.table)
        for s in self.labels.table:
            if s not in known:
                known[s] = len(table)
                table.append(s)
        lookup = np.array([known[s] for s in self.labels.table] or [0], np.int32)
        code = np.where(self.labels.code >= 0, lookup[np.maximum(self.labels.code, 0)], names.code)
        return Coded(code.astype(np.int32), tuple(table))

    def in_scope(self, tags: Sequence[str] | None) -> BoolArray:
        """Groups having any of the tags [G]; all of them for None."""
        if tags is None:
            return np.ones(self.group_count, bool)
        mask = np.zeros(self.group_count, bool)
        if self.tags is not None:
            wanted = [i for i, t in enumerate(self.tags.table) if t in set(tags)]
            owner = np.repeat(np.arange(self.group_count), np.diff(self.tags.indptr))
            mask[owner[np.isin(self.tags.code, wanted)]] = True
        return mask

    # -- the loss ------------------------------------------------------------------------------------------------

    @cached_property
    def unary(self) -> FloatArray:
        """Loss of each choice by itself [N]: Σ_terms weight·(score + stderr_weight·stderr), rounded once."""
        parts = []
        for name, weight in self.loss.terms.items():
            part = self.scores[name]
            if self.loss.stderr_weight and name in self.stderr:
                part = part + self.loss.stderr_weight * self.stderr[name]
            parts.append(part if weight == 1 else weight * part)
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        if len(parts) > 2:  # the sum of two is rounded once anyway
            total = np.sum(parts, axis=0)
            if np.isfinite(total).all():
                total = np.array([math.fsum(terms) for terms in zip(*(p.tolist() for p in parts), strict=True)])
        total.setflags(write=False)
        return total

    @cached_property
    def active_interactions(self) -> tuple[tuple[float, Interaction], ...]:
        """Interactions whose score is a term of the loss, with the term's weight."""
        return tuple((self.loss.terms[i.score], i) for i in self.interactions if self.loss.terms.get(i.score))

    def exact(self, resource: str) -> bool:
        """Whether the cost column is integer arithmetic: integers throughout, absolute sum below 2^63."""
        return resource in self._integer_costs

    @cached_property
    def _integer_costs(self) -> Mapping[str, IntArray]:
        found: dict[str, IntArray] = {}
        for name, column in self.costs.items():
            offset = self.resources[name].offset
            if not float(offset).is_integer():
                continue
            parts = list(pieces(len(column)))
            if column.dtype != np.int64 and not all(np.array_equal(np.floor(column[p]), column[p]) for p in parts):
                continue
            size = math.fsum(float(np.abs(column[p].astype(np.float64)).sum()) for p in parts)
            small = size + abs(float(offset)) < 2.0**62
            if small or sum(abs(int(x)) for x in column.tolist()) + abs(int(offset)) < 2**63:
                found[name] = column.astype(np.int64, copy=False)
        return found

    def cost(self, resource: str) -> IntArray | FloatArray:
        """Cost column in the arithmetic that decides feasibility: int64 where exact, float64 otherwise."""
        integer = self._integer_costs.get(resource)
        return integer if integer is not None else self.costs[resource].astype(np.float64, copy=False)

    @cached_property
    def features(self) -> frozenset[str]:
        """Parts of the format that this problem uses and a solver must understand (see `allocator.features`)."""
        from allocator.features import features_of

        return features_of(self)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant."""
        from allocator.validation import warnings_of

        return warnings_of(self)

    # -- views ---------------------------------------------------------------------------------------------------

    @property
    def groups(self) -> Sequence[Group]:
        """Views of the groups, made on demand."""
        from allocator.views import Groups

        return Groups(self)

    def row(self, group: str, choice: str) -> int:
        """Row of a named choice; `KeyError` with the name that is not there."""
        g = self.group_names.position[group]
        for place in range(int(self.sizes[g])):
            row = int(self.indptr[g]) + place
            if self.choice_names.text(row, place) == choice:
                return row
        raise KeyError(choice)

    def choice_name(self, row: int) -> str:
        """Name of the choice in a row."""
        group = int(np.searchsorted(self.indptr, row, side="right")) - 1
        return self.choice_names.text(row, row - int(self.indptr[group]))

    def evaluate(self, choice: ArrayLike) -> Outcome:
        """Loss, objective, totals and violations of an allocation: index of the choice within each group [G]."""
        from allocator.evaluation import evaluate

        return evaluate(self, np.asarray(choice))

    # -- variants ------------------------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> Problem:
        """A copy with other parts; the columns are shared."""
        if changes.keys() == {"budgets"}:
            return self._with_rows(changes["budgets"])
        return dataclasses.replace(self, **changes)

    def _with_rows(self, budgets: tuple[Budget, ...]) -> Problem:
        """Other budgets alone: what was checked and worked out from the columns stays (a sweep asks for this often)."""
        from allocator.validation import validate_header

        other: Problem = object.__new__(Problem)
        kept = {name: part for name, part in self.__dict__.items() if name not in DEPEND_ON_BUDGETS}
        other.__dict__.update(kept | {"budgets": budgets})
        validate_header(other)
        return other

    def with_budget(self, resource: str, max: Number | None = None, min: Number | None = None) -> Problem:  # noqa: A002 - the format's own words
        """The unscoped row of a resource replaced where it stands, or added at the end; columns are shared."""
        row = Budget(resource=resource, max=max, min=min)
        old = [i for i, b in enumerate(self.budgets) if b.resource == resource and b.tags is None]
        if not old:
            return self.replace(budgets=(*self.budgets, row))
        rows = [row if i == old[0] else b for i, b in enumerate(self.budgets) if i not in old[1:]]
        return self.replace(budgets=tuple(rows))

    def with_loss(self, terms: Mapping[str, float] | str, **changes: Any) -> Problem:
        """Another loss over the same scores: a score name, or name → weight; other fields of `Loss` by keyword."""
        named = {terms: 1.0} if isinstance(terms, str) else dict(terms)
        return self.replace(loss=dataclasses.replace(self.loss, terms=named, **changes))

    def with_scores(
        self,
        scores: Mapping[str, ArrayLike],
        stderr: Mapping[str, ArrayLike] | None = None,
        specs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Problem:
        """Further (or newer) scores, each [N] in the order of the choices; the loss stays as it is."""
        columns = {s: np.array(v, np.float64) for s, v in scores.items()}
        errors = {s: np.array(v, np.float64) for s, v in (stderr or {}).items()}
        kept = {s: v for s, v in self.stderr.items() if s not in columns}
        return self.replace(
            scores={**self.scores, **columns},
            stderr={**kept, **errors},
            score_specs={**self.score_specs, **(specs or {})},
        )

    @staticmethod
    def from_rows(rows: Mapping[str, Any]) -> Problem:
        """Build from the row form of problem.json as plain Python data."""
        from allocator.formats.rows import problem_from_rows

        return problem_from_rows(rows)

    @staticmethod
    def from_arrays(
        scores: Mapping[str, ArrayLike] | ArrayLike,
        costs: Mapping[str, ArrayLike] | ArrayLike,
        *,
        indptr: ArrayLike | None = None,
        budgets: Mapping[str, Number] | None = None,
        group_names: Sequence[str] | None = None,
        choice_names: Sequence[str] | None = None,
        **parts: Any,
    ) -> Problem:
        """Build from arrays: [G, K] where all groups have K choices, or flat [N] with `indptr` [G+1].

        Args:
            scores: one array (named "score") or name → array.
            costs: one array (named "cost") or name → array; integers stay exact.
            indptr: first row of each group, for ragged groups.
            budgets: resource → max.
            group_names: default g0, g1, …
            choice_names: names by place (for [G, K]) or by row (flat); default c0, c1, …
            parts: any other field of `Problem`.
        """
        by_score = dict(scores) if isinstance(scores, Mapping) else {"score": scores}
        by_cost = dict(costs) if isinstance(costs, Mapping) else {"cost": costs}
        first = np.asarray(next(iter(by_score.values())))
        if indptr is None:
            groups, places = (first.shape[0], first.shape[1]) if first.ndim == 2 else (len(first), 1)
            start = np.arange(groups + 1, dtype=np.int64) * places
            names = None if choice_names is None else list(choice_names) * groups
        else:
            start = np.array(indptr, np.int64)
            names = None if choice_names is None else list(choice_names)
        coded = Coded(np.full(int(start[-1]), -1, np.int32), ()) if names is None else encode(names)

        def flat(values: ArrayLike) -> NDArray[Any]:
            array = np.array(values).reshape(-1)
            whole = array.dtype.kind in "iub" and not (array.dtype == np.uint64 and (array >= 2**63).any())
            return array.astype(np.int64 if whole else np.float64)

        if budgets is not None:
            parts["budgets"] = tuple(Budget(resource=r, max=m) for r, m in budgets.items())
        if "loss" not in parts:
            parts["loss"] = Loss(dict.fromkeys(list(by_score)[:1], 1.0))
        return Problem(
            indptr=start,
            scores={s: flat(v).astype(np.float64) for s, v in by_score.items()},
            costs={r: flat(v) for r, v in by_cost.items()},
            group_names=Names(len(start) - 1 if group_names is None else len(group_names), group_names),
            choice_names=coded,
            **parts,
        )

    def __repr__(self) -> str:
        return (
            f"Problem({self.group_count} groups, {self.choice_count} choices, scores {list(self.scores)}, "
            f"resources {list(self.costs)}, {len(self.budgets)} budgets)"
        )
