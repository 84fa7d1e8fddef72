"""The row form of problem.json: one object per group and choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from allocator.errors import Fault, ProblemError
from allocator.formats import types
from allocator.formats.decode import decode
from allocator.formats.header import complete, header_to_rows, place_of
from allocator.names import Coded, Names, Ragged, encode
from allocator.problem import Problem
from allocator.statement import Loss, Pairs
from allocator.validation import MOST_FAULTS, pointer

LARGEST = 2**63


def problem_from_rows(rows: Mapping[str, Any]) -> Problem:
    """Build a problem from plain data in the row form.

    Raises:
        ProblemError: up to 100 faults with JSON pointers.
    """
    try:
        data = msgspec.json.encode(rows)
    except (TypeError, ValueError) as error:
        raise ProblemError([Fault("", f"holds something JSON cannot: {error}")]) from None
    return problem_from_file(decode(data, types.ProblemFile, "problem"), extra_keys(data))


def extra_keys(data: bytes) -> dict[str, Any]:
    """The free x- keys of a document."""
    top = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    found = {}
    for key, raw in top.items():
        if key.startswith("x-"):
            try:
                found[key] = msgspec.json.decode(raw)
            except (msgspec.DecodeError, RecursionError) as error:
                raise ProblemError([Fault(pointer(key), f"cannot be read: {error}")]) from None
    return found


def problem_from_file(file: types.ProblemFile, extra: Mapping[str, Any]) -> Problem:
    """Columns from parsed rows; checks what columns cannot show: that all choices carry the same names."""
    if file.groups is not UNSET and file.columns is not UNSET:
        raise ProblemError([Fault("/columns", "stands beside groups; give one of them")])
    if file.groups is UNSET:
        raise ProblemError([Fault("/groups", "is missing; give groups (or columns and their file)")])
    groups = file.groups
    if not groups:
        raise ProblemError([Fault("/groups", "there are no groups; a problem needs at least one")])
    choices = [c for g in groups for c in g.choices]
    resources, scores = tuple(choices[0].cost), tuple(choices[0].score)
    faults = _uneven(groups, set(resources), set(scores))
    if faults:
        raise ProblemError(faults[:MOST_FAULTS])
    sizes = np.fromiter((len(g.choices) for g in groups), np.int64, len(groups))
    count = len(choices)

    def column(read: Callable[[types.ChoiceRow], float]) -> NDArray[np.float64]:
        return np.fromiter((read(c) for c in choices), np.float64, count)

    labels = None
    if any(c.label is not UNSET for c in choices):
        coded = encode([c.label for c in choices if c.label is not UNSET])
        codes = np.full(count, -1, np.int32)
        codes[[c.label is not UNSET for c in choices]] = coded.code
        labels = Coded(codes, coded.table)
    action_code, action_table = _actions(choices)
    bare = Problem(
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        scores={s: column(lambda c, s=s: c.score[s]) for s in scores},  # type: ignore[misc]  # default binds the loop variable
        costs={r: numbers([c.cost[r] for c in choices]) for r in resources},
        stderr=_optional(choices, count, "stderr", scores),
        remainder=_optional(choices, count, "remainder", scores),
        allowed=None if all(c.allowed for c in choices) else np.fromiter((c.allowed for c in choices), bool, count),
        group_names=Names(len(groups), [g.name for g in groups]),
        choice_names=encode([c.name for c in choices]),
        labels=labels,
        weights=_weights(groups),
        action_code=action_code,
        action_table=action_table,
        tags=Ragged.from_lists([g.tags for g in groups]) if any(g.tags for g in groups) else None,
        modules=Ragged.from_lists([[] if g.modules is UNSET else g.modules for g in groups])
        if any(g.modules is not UNSET for g in groups)
        else None,
        stats={
            name: np.array([g.stats.get(name, np.nan) for g in groups])
            for name in dict.fromkeys(n for g in groups for n in g.stats)
        },
        loss=Loss({scores[0]: 1.0}),
    )
    return complete(bare, file, extra, ())


def numbers(values: list[int | float]) -> NDArray[Any]:
    """A cost column: int64 where every number is an integer that fits, float64 otherwise."""
    if all(type(v) is int and -LARGEST <= v < LARGEST for v in values):
        return np.array(values, np.int64)
    if all(float(v).is_integer() for v in values) and sum(abs(int(v)) for v in values) < LARGEST:
        return np.array([int(v) for v in values], np.int64)
    return np.array([float(v) for v in values], np.float64)


def _uneven(groups: list[types.GroupRow], resources: set[str], scores: set[str]) -> list[Fault]:
    faults: list[Fault] = []
    for g, group in enumerate(groups):
        for k, choice in enumerate(group.choices):
            at = ("groups", g, "choices", k)
            for part, found, wanted in (("cost", choice.cost, resources), ("score", choice.score, scores)):
                if found.keys() != wanted:
                    why = dict.fromkeys(sorted(wanted - found.keys()), "is missing; every choice needs the same names")
                    why |= dict.fromkeys(sorted(found.keys() - wanted), "is not in the first choice; give it to all")
                    faults += [Fault(pointer(*at, part, name), reason) for name, reason in why.items()]
            for part, found in (("stderr", choice.stderr), ("remainder", choice.remainder)):
                unknown = sorted(found.keys() - scores)
                faults += [Fault(pointer(*at, part, name), "is no score of this choice") for name in unknown]
            if choice.action is not UNSET and not isinstance(choice.action.get("kind"), str):
                faults.append(Fault(pointer(*at, "action", "kind"), "is missing; an action names its kind"))
            for name, value in choice.cost.items():
                if isinstance(value, int) and not -LARGEST <= value < LARGEST and abs(value) > 2**1000:
                    faults.append(Fault(pointer(*at, "cost", name), "is too large a number"))
        if len(faults) >= MOST_FAULTS:
            break
    return faults


def _optional(
    choices: list[types.ChoiceRow], count: int, part: str, scores: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    used = {name for c in choices for name in getattr(c, part)}
    return {
        s: np.fromiter((getattr(c, part).get(s, 0.0) for c in choices), np.float64, count) for s in scores if s in used
    }


def _weights(groups: list[types.GroupRow]) -> NDArray[np.int64] | None:
    if all(g.weights is UNSET for g in groups):
        return None
    return np.array([-1 if g.weights is UNSET else g.weights for g in groups], np.int64)


def _actions(choices: list[types.ChoiceRow]) -> tuple[NDArray[np.int32] | None, tuple[Mapping[str, Any], ...]]:
    if all(c.action is UNSET for c in choices):
        return None, ()
    known: dict[bytes, int] = {}
    table: list[Mapping[str, Any]] = []
    codes = np.full(len(choices), -1, np.int32)
    for i, c in enumerate(choices):
        if c.action is not UNSET:
            key = msgspec.json.encode(c.action, order="sorted")
            if key not in known:
                known[key] = len(table)
                table.append(c.action)
            codes[i] = known[key]
    return codes, tuple(table)


def problem_to_rows(p: Problem) -> dict[str, Any]:
    """Plain data in the row form; reading it back gives the same problem."""
    out = header_to_rows(p)
    tail = {k: out.pop(k) for k in list(out) if k in ("provenance", "meta") or k.startswith("x-")}
    out["groups"] = [
        group_to_row(p, g) | {"choices": [_choice(p, r) for r in range(*p.indptr[g : g + 2].tolist())]}
        for g in range(p.group_count)
    ]
    return out | interactions_to_rows(p) | tail


def interactions_to_rows(p: Problem) -> dict[str, Any]:
    """What the file says of interactions; empty where there are none."""
    return {"interactions": [_interaction(p, part) for part in p.interactions]} if p.interactions else {}


def group_to_row(p: Problem, g: int) -> dict[str, Any]:
    """One group, without its choices."""
    view = p.groups[g]
    row: dict[str, Any] = {"name": view.name}
    if p.modules is not None and (modules := p.modules.of(g)):
        row["modules"] = list(modules)
    if view.weights is not None:
        row["weights"] = view.weights
    if view.tags:
        row["tags"] = list(view.tags)
    stats = {name: float(column[g]) for name, column in p.stats.items() if not np.isnan(column[g])}
    if stats:
        row["stats"] = stats
    return row


def _choice(p: Problem, r: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": p.choice_name(r)}
    if p.labels is not None and p.labels.code[r] >= 0:
        row["label"] = p.labels.table[p.labels.code[r]]
    if p.action_code is not None and p.action_code[r] >= 0:
        row["action"] = dict(p.action_table[p.action_code[r]])
    row["cost"] = {name: column[r].item() for name, column in p.costs.items()}
    row["score"] = {name: float(column[r]) for name, column in p.scores.items()}
    for part, columns in (("stderr", p.stderr), ("remainder", p.remainder)):
        if values := {name: float(column[r]) for name, column in columns.items() if column[r]}:
            row[part] = values
    if p.allowed is not None and not p.allowed[r]:
        row["allowed"] = False
    return row


def _interaction(p: Problem, part: Any) -> dict[str, Any]:
    if isinstance(part, Pairs):
        pairs = [
            {"a": place_of(p, a), "b": place_of(p, b), "value": value}
            for (a, b), value in zip(part.index.tolist(), part.value.tolist(), strict=True)
        ]
        return {"score": part.score, "pairs": pairs}
    vectors: dict[str, dict[str, list[float]]] = {}
    for r in np.flatnonzero(part.vectors.any(axis=1)).tolist():
        g, c = place_of(p, r)
        vectors.setdefault(g, {})[c] = part.vectors[r].astype(np.float64).tolist()
    return {"score": part.score, "basis": {"eigenvalues": part.eigenvalues.tolist(), "vectors": vectors}}
