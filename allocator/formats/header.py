"""The named parts of problem.json (loss, budgets, couplings, pins, interactions) resolved to indices, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET

from allocator.errors import Fault, ProblemError
from allocator.features import MEANING
from allocator.formats import types
from allocator.problem import Problem
from allocator.statement import (
    Basis,
    Budget,
    Cardinality,
    Coupling,
    Implies,
    Interaction,
    Loss,
    MaxDistinct,
    Notes,
    Pairs,
    Resource,
    SameChoice,
)
from allocator.validation import MOST_FAULTS, TARGETS, pointer


class Resolver:
    """Finds groups, choices and tags by name, and collects a fault for each name that is not there."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.faults: list[Fault] = []
        self._rows: dict[int, dict[str, int]] = {}

    def group(self, name: str, *where: str | int) -> int:
        """Index of a group, 0 with a fault where there is none."""
        found = self.problem.group_names.position.get(name)
        if found is None:
            self.faults.append(Fault(pointer(*where), f"there is no group {name!r}"))
        return found or 0

    def row(self, group: str, choice: str, *where: str | int) -> int:
        """Row of a choice, 0 with a fault where there is none."""
        before = len(self.faults)
        g = self.group(group, *where)
        if len(self.faults) > before:
            return 0
        if g not in self._rows:
            start, stop = self.problem.indptr[g : g + 2].tolist()
            self._rows[g] = {self.problem.choice_names.text(r, r - start): r for r in range(start, stop)}
        found = self._rows[g].get(choice)
        if found is None:
            known = ", ".join(list(self._rows[g])[:8])
            self.faults.append(Fault(pointer(*where), f"group {group!r} has no choice {choice!r}; known: {known}"))
        return found or 0

    def finish(self, build: Callable[[], Problem]) -> Problem:
        """What `build` makes; or a ProblemError with what was collected and what `build` finds wrong."""
        try:
            built = build()
        except ProblemError as error:
            self.faults += error.faults
        if self.faults:
            raise ProblemError(list(dict.fromkeys(self.faults))[:MOST_FAULTS])
        return built


def complete(
    bare: Problem, file: types.ProblemFile, extra: Mapping[str, Any], arrays: Sequence[Interaction]
) -> Problem:
    """The problem with everything that the header says; `arrays` holds interactions that came as columns."""
    find = Resolver(bare)
    for name in file.requires:
        if name not in MEANING:
            find.faults.append(Fault("/requires", f"asks for {name!r}, which this version does not know; upgrade"))
    for part, declared, carried in (("scores", file.scores, bare.scores), ("resources", file.resources, bare.costs)):
        missing = [name for name in declared if name not in carried]
        find.faults += [Fault(pointer(part, name), "no choice has it; remove it") for name in missing]
    for name, spec in file.scores.items():
        if "target" in spec and spec["target"] not in TARGETS:
            find.faults.append(Fault(pointer("scores", name, "target"), f"must be one of {', '.join(TARGETS)}"))
        for key in ("unit", "per"):
            if not isinstance(spec.get(key, ""), str):
                find.faults.append(Fault(pointer("scores", name, key), "must be a string"))
    parts: dict[str, Any] = {
        "couplings": tuple(_coupling(find, i, row) for i, row in enumerate(file.couplings)),
        "pins": {find.group(g, "pins", g): find.row(g, c, "pins", g) for g, c in file.pins.items()},
        "interactions": tuple(arrays) if file.columns is not UNSET else tuple(_interactions(find, file)),
    }
    if isinstance(file.reference, dict):
        for g, c in file.reference.items():
            find.row(g, c, "reference", g)
    if len(bare.scores) > 1 and file.loss.terms is UNSET:
        find.faults.append(Fault("/loss", f"several scores ({', '.join(bare.scores)}): name those that count in terms"))
    related = {} if find.faults else parts  # indices of names that are not there would mislead
    return find.finish(
        lambda: bare.replace(
            loss=_loss(file.loss, bare),
            minimize={file.minimize: 1.0} if isinstance(file.minimize, str) else dict(file.minimize),
            budgets=tuple(_budget(row) for row in file.budgets),
            score_specs=dict(file.scores),
            resources={
                name: Resource("1" if spec.unit is UNSET else spec.unit, spec.aggregate, spec.offset)
                for name, spec in file.resources.items()
            },
            reference=_set(file.reference),
            notes=Notes(_set(file.generator), _set(file.provenance), _set(file.meta), tuple(file.requires), extra),
            **related,
        )
    )


def _set(value: Any) -> Any:
    return None if value is UNSET else value


def _loss(spec: types.LossSpec, bare: Problem) -> Loss:
    terms = dict.fromkeys(bare.scores, 1.0) if spec.terms is UNSET else dict(spec.terms)
    return Loss(terms, spec.aggregate, _set(spec.p), spec.stderr_weight)


def _budget(row: types.BudgetRow) -> Budget:
    return Budget(
        resource=_set(row.resource),
        max=_set(row.max),
        min=_set(row.min),
        tags=None if row.tags is UNSET else tuple(row.tags),
        loss=row.loss is not UNSET,
        score=_set(row.score),
        include_remainder=row.include_remainder,
    )


def _coupling(find: Resolver, i: int, row: types.CouplingRow) -> Coupling:
    at = ("couplings", i)
    if isinstance(row, types.SameChoiceRow):
        return SameChoice(tuple(dict.fromkeys(find.group(g, *at, "groups", j) for j, g in enumerate(row.groups))))
    if isinstance(row, types.ImpliesRow):
        return Implies(find.row(*row.if_, *at, "if"), find.row(*row.then, *at, "then"))
    if isinstance(row, types.MaxDistinctRow):
        if row.groups is not UNSET and row.tags is not UNSET:
            find.faults.append(Fault(pointer(*at), "has both groups and tags; give one"))
        if row.groups is not UNSET:
            groups = tuple(dict.fromkeys(find.group(g, *at, "groups", j) for j, g in enumerate(row.groups)))
            if groups:
                return MaxDistinct(row.count, groups, frozenset(row.ignore))
            find.faults.append(Fault(pointer(*at, "groups"), "is empty; leave it out to mean all groups"))
            groups = (0,)
            return MaxDistinct(row.count, groups, frozenset(row.ignore))
        tags = None if row.tags is UNSET else tuple(row.tags)
        known = set(find.problem.tags.table) if find.problem.tags is not None else set()
        for tag in set(tags or ()) - known:
            find.faults.append(Fault(pointer(*at, "tags"), f"no group has the tag {tag!r}"))
        scope = np.flatnonzero(find.problem.in_scope(tags)).tolist()
        if not scope and not set(tags or ()) - known:
            find.faults.append(Fault(pointer(*at, "tags"), "is empty; leave it out to mean all groups"))
        return MaxDistinct(row.count, tuple(scope), frozenset(row.ignore), tags, everywhere=tags is None)
    kind: Literal["at_most", "at_least", "exactly"] = "exactly"
    if not isinstance(row, types.ExactlyRow):
        kind = "at_most" if isinstance(row, types.AtMostRow) else "at_least"
    rows = tuple(find.row(*place, *at, "choices", j) for j, place in enumerate(row.choices))
    return Cardinality(kind, rows, row.count)


def _interactions(find: Resolver, file: types.ProblemFile) -> Iterator[Interaction]:
    problem = find.problem
    for i, part in enumerate(file.interactions):
        at = ("interactions", i)
        if part.pairs is UNSET and part.basis is UNSET:
            find.faults.append(Fault(pointer(*at), "has neither pairs nor basis; add one"))
        if part.pairs is not UNSET:
            index = [
                (find.row(*q.a, *at, "pairs", m, "a"), find.row(*q.b, *at, "pairs", m, "b"))
                for m, q in enumerate(part.pairs)
            ]
            values = np.array([q.value for q in part.pairs], np.float64)
            yield Pairs(part.score, np.array(index, np.int64).reshape(-1, 2), values)
        if part.basis is not UNSET:
            eigenvalues = np.array(part.basis.eigenvalues, np.float64)
            vectors = np.zeros((problem.choice_count, len(eigenvalues)))
            for g, by_choice in part.basis.vectors.items():
                for c, vector in by_choice.items():
                    where = (*at, "basis", "vectors", g, c)
                    before = len(find.faults)
                    row = find.row(g, c, *where)
                    if len(vector) != len(eigenvalues):
                        find.faults.append(
                            Fault(pointer(*where), f"has {len(vector)} numbers for {len(eigenvalues)} eigenvalues")
                        )
                    elif len(find.faults) == before:
                        vectors[row] = vector
            yield Basis(part.score, eigenvalues, vectors)


def header_to_rows(p: Problem) -> dict[str, Any]:
    """Everything of problem.json but groups, columns and interactions, as plain data."""
    out: dict[str, Any] = {"format": "allocation-problem", "version": 1}
    notes = p.notes
    if notes.requires:
        out["requires"] = list(notes.requires)
    if notes.generator is not None:
        out["generator"] = dict(notes.generator)
    out["scores"] = {s: dict(spec) for s, spec in p.score_specs.items()}
    out["resources"] = {r: msgspec.to_builtins(_resource(spec)) for r, spec in p.resources.items()}
    if p.reference is not None:
        out["reference"] = p.reference if isinstance(p.reference, str) else dict(p.reference)
    loss: dict[str, Any] = {"terms": dict(p.loss.terms), "aggregate": p.loss.aggregate}
    if p.loss.p is not None:
        loss["p"] = p.loss.p
    if p.loss.stderr_weight:
        loss["stderr_weight"] = p.loss.stderr_weight
    out["loss"] = loss
    out["minimize"] = next(iter(p.minimize)) if list(p.minimize.values()) == [1.0] else dict(p.minimize)
    out["budgets"] = [_budget_row(b) for b in p.budgets]
    out["couplings"] = [_coupling_row(p, c) for c in p.couplings]
    out["pins"] = {p.group_names[g]: p.choice_name(row) for g, row in p.pins.items()}
    if notes.provenance is not None:
        out["provenance"] = dict(notes.provenance)
    if notes.meta is not None:
        out["meta"] = notes.meta
    return out | dict(notes.extra)


def _resource(spec: Resource) -> types.ResourceSpec:
    return types.ResourceSpec(unit=spec.unit, aggregate=spec.aggregate, offset=spec.offset)


def _budget_row(b: Budget) -> dict[str, Any]:
    row: dict[str, Any] = {"resource": b.resource} if b.resource is not None else {"score": b.score}
    if b.loss:
        row = {"loss": True}
    if b.include_remainder:
        row["include_remainder"] = True
    limits = {"max": b.max, "min": b.min, "tags": None if b.tags is None else list(b.tags)}
    return row | {key: value for key, value in limits.items() if value is not None}


def place_of(p: Problem, row: int) -> list[str]:
    """[group, choice] of a row."""
    return [p.group_names[int(p.group_of[row])], p.choice_name(row)]


def _coupling_row(p: Problem, c: Coupling) -> dict[str, Any]:
    if isinstance(c, SameChoice):
        return {"kind": "same_choice", "groups": [p.group_names[g] for g in c.groups]}
    if isinstance(c, Implies):
        return {"kind": "implies", "if": place_of(p, c.if_row), "then": place_of(p, c.then_row)}
    if isinstance(c, Cardinality):
        return {"kind": c.kind, "choices": [place_of(p, r) for r in c.rows], "count": c.count}
    row: dict[str, Any] = {"kind": "max_distinct", "count": c.count}
    if c.tags is not None:
        row["tags"] = list(c.tags)
    elif not c.everywhere:
        row["groups"] = [p.group_names[g] for g in c.groups]
    return row | ({"ignore": sorted(c.ignore)} if c.ignore else {})
