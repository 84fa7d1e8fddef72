"""The checks that every problem passes once, whichever way it was built: finite, in range, named, consistent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import Fault, ProblemError
from allocator.statement import Basis, Cardinality, Implies, MaxDistinct, Pairs, SameChoice

if TYPE_CHECKING:
    from allocator.problem import Problem

MOST_FAULTS = 100
LARGEST = 1e300
TARGETS = ("kl", "ce", "metric", "proxy")


def pointer(*parts: str | int) -> str:
    """JSON pointer (RFC 6901) of a place in the row form."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)


def validate(problem: Problem) -> None:
    """Raise `ProblemError` with up to 100 faults, or return."""
    stages: tuple[tuple[Callable[[Problem], Iterator[Fault]], ...], ...] = (
        (_shape,),
        (_names, _values, _header),
        (_relations,),
    )
    for stage in stages:  # in this order: later stages lean on what earlier ones established
        _raise(fault for check in stage for fault in check(problem))


def validate_header(problem: Problem) -> None:
    """The same for a problem whose columns, names and interactions are those of a valid one."""
    _raise(_header(problem))


def _raise(faults: Iterator[Fault]) -> None:
    found = list(islice(faults, MOST_FAULTS))
    if found:
        raise ProblemError(found)


def _shape(p: Problem) -> Iterator[Fault]:
    start = p.indptr
    if start.ndim != 1 or len(start) < 2 or start.dtype != np.int64:
        yield Fault("/groups", "there are no groups; a problem needs at least one")
        return
    falls = start[1:] <= start[:-1]
    if start[0] != 0 or falls.any():
        g = 0 if start[0] != 0 else int(falls.argmax())
        yield Fault(pointer("groups", g, "choices"), "a group needs at least one choice")
        return
    if not p.scores:
        yield Fault("/groups", "the choices carry no score; at least one is needed")
    if not p.costs:
        yield Fault("/groups", "the choices carry no cost; at least one resource is needed")
    per_choice: dict[str, Any] = {"allowed": p.allowed, "action": p.action_code, "name": p.choice_names.code}
    per_choice |= {f"score/{s}": v for s, v in p.scores.items()} | {f"cost/{r}": v for r, v in p.costs.items()}
    for part, columns in (("stderr", p.stderr), ("remainder", p.remainder)):
        per_choice |= {f"{part}/{s}": v for s, v in columns.items()}
    per_choice["label"] = None if p.labels is None else p.labels.code
    for name, column in per_choice.items():
        if column is not None and column.shape != (p.choice_count,):
            yield Fault("/" + name, f"has shape {column.shape}; the groups hold {p.choice_count} choices")
    per_group: dict[str, Any] = {"weights": p.weights} | {f"stats/{s}": v for s, v in p.stats.items()}
    for name, column in per_group.items():
        if column is not None and column.shape != (p.group_count,):
            yield Fault("/" + name, f"has shape {column.shape}; there are {p.group_count} groups")
    if len(p.group_names) != p.group_count:
        yield Fault("/groups", f"{len(p.group_names)} names for {p.group_count} groups")


def _names(p: Problem) -> Iterator[Fault]:
    tables = (p.group_names.explicit, p.choice_names.table, p.labels and p.labels.table, p.tags and p.tags.table)
    try:
        "".join(name for table in (p.scores, p.costs, p.stats, *tables) for name in table or ()).encode()
    except UnicodeEncodeError as error:
        yield Fault("/groups", f"a name holds {error.object[error.start]!r}, half a character; repair the text")
    for kind, known in (("score", p.scores), ("resource", p.costs)):
        for name in known:
            if name in ("", "loss"):
                yield Fault(pointer(kind + "s", name), f"a {kind} cannot be named {name!r}; rename it")
    if p.group_names.explicit is not None:
        seen: dict[str, int] = {}
        for g, name in enumerate(p.group_names.explicit):
            if not name:
                yield Fault(pointer("groups", g, "name"), "is empty; give the group a name")
            elif seen.setdefault(name, g) != g:
                yield Fault(pointer("groups", g, "name"), f"{name!r} is already the name of group {seen[name]}")
    names = p.choice_names.resolved(p.places)
    if "" in names.table:
        empty = names.table.index("")
        for row in np.flatnonzero(names.code == empty).tolist():
            yield Fault(_choice(p, row, "name"), "is empty; give the choice a name")
    if not (p.choice_names.code >= 0).any():
        return  # the defaults differ by construction
    order = np.lexsort((names.code, p.group_of))
    twice = (np.diff(names.code[order]) == 0) & (np.diff(p.group_of[order]) == 0)
    for row in order[1:][twice].tolist():
        yield Fault(
            _choice(p, row, "name"),
            f"{p.choice_name(row)!r} is used twice in group {p.group_names[int(p.group_of[row])]!r}",
        )


def _values(p: Problem) -> Iterator[Fault]:
    columns = [("score", s, v) for s, v in p.scores.items()] + [("cost", r, v) for r, v in p.costs.items()]
    columns += [("stderr", s, v) for s, v in p.stderr.items()] + [("remainder", s, v) for s, v in p.remainder.items()]
    for part, name, column in columns:
        if column.dtype.kind == "f":
            for row in _first(~np.isfinite(column)):
                yield Fault(_choice(p, row, part, name), f"is {column[row]}; numbers must be finite")
        if part in ("stderr", "remainder"):
            for row in _first(column < 0):
                yield Fault(_choice(p, row, part, name), f"is {column[row]}; it must be 0 or more")
            if name not in p.scores:
                yield Fault(pointer(part, name), f"there is no score {name!r}; known: {', '.join(p.scores)}")
    if p.weights is not None:
        for g in _first(p.weights < -1):
            yield Fault(pointer("groups", g, "weights"), f"is {p.weights[g]}; a count is 0 or more")
    for name, stat in p.stats.items():
        for g in _first(np.isinf(stat)):
            yield Fault(pointer("groups", g, "stats", name), "is infinite; numbers must be finite")
    for i, interaction in enumerate(p.interactions):
        yield from _interaction(p, i, interaction)


def _interaction(p: Problem, i: int, part: Pairs | Basis) -> Iterator[Fault]:
    if part.score not in p.scores:
        yield Fault(pointer("interactions", i, "score"), f"there is no score {part.score!r}")
    if isinstance(part, Pairs):
        if part.index.shape != (len(part.value), 2):
            yield Fault(pointer("interactions", i, "pairs"), "index and value differ in length")
            return
        for m in _first(((part.index < 0) | (part.index >= p.choice_count)).any(axis=1)):
            yield Fault(pointer("interactions", i, "pairs", m), "names a choice row that does not exist")
            return
        groups = p.group_of[part.index]
        for m in _first(groups[:, 0] == groups[:, 1]):
            yield Fault(
                pointer("interactions", i, "pairs", m),
                f"both choices belong to group {p.group_names[int(groups[m, 0])]!r}; pairs join different groups",
            )
        for m in _first(~np.isfinite(part.value)):
            yield Fault(pointer("interactions", i, "pairs", m, "value"), "numbers must be finite")
        return
    if part.vectors.shape != (p.choice_count, len(part.eigenvalues)):
        yield Fault(
            pointer("interactions", i, "basis"),
            f"vectors of shape {part.vectors.shape}, not {(p.choice_count, len(part.eigenvalues))} as the choices and "
            "eigenvalues ask",
        )
        return
    if not np.isfinite(part.eigenvalues).all():
        yield Fault(pointer("interactions", i, "basis", "eigenvalues"), "numbers must be finite")
    for row in _first(~np.isfinite(part.vectors).all(axis=1)):
        g = p.group_names[int(p.group_of[row])]
        yield Fault(pointer("interactions", i, "basis", "vectors", g, p.choice_name(row)), "numbers must be finite")


def _header(p: Problem) -> Iterator[Fault]:
    loss = p.loss
    if not loss.terms:
        yield Fault("/loss/terms", f"is empty; name at least one of {', '.join(p.scores)}")
    for name, weight in loss.terms.items():
        if name not in p.scores:
            yield Fault(pointer("loss", "terms", name), f"there is no score {name!r}; known: {', '.join(p.scores)}")
        if not (_finite(weight) and weight >= 0):
            yield Fault(pointer("loss", "terms", name), f"weight {weight} must be finite and 0 or more")
    if not (_finite(loss.stderr_weight) and loss.stderr_weight >= 0):
        yield Fault("/loss/stderr_weight", f"{loss.stderr_weight} must be finite and 0 or more")
    if loss.aggregate == "pnorm" and not (loss.p is not None and _finite(loss.p) and loss.p >= 1):
        yield Fault("/loss/p", f"a p-norm needs p of 1 or more, not {loss.p}")
    if not p.minimize:
        yield Fault("/minimize", "is empty; write 'loss' or a resource")
    for name, weight in p.minimize.items():
        if name != "loss" and name not in p.costs:
            yield Fault("/minimize", f"{name!r} is neither 'loss' nor a resource ({', '.join(p.costs)})")
        if not _finite(weight):
            yield Fault(pointer("minimize", name), "numbers must be finite")
    for name, spec in p.resources.items():
        if not _finite(spec.offset):
            yield Fault(pointer("resources", name, "offset"), "numbers must be finite")
    known_tags = {p.tags.table[c] for c in np.unique(p.tags.code).tolist()} if p.tags is not None else set()
    for i, b in enumerate(p.budgets):
        if b.resource is not None and b.resource not in p.costs:
            yield Fault(
                pointer("budgets", i, "resource"),
                f"there is no resource {b.resource!r}; known: {', '.join(p.costs)}",
            )
        if b.score is not None and b.score not in p.scores:
            yield Fault(pointer("budgets", i, "score"), f"there is no score {b.score!r}; known: {', '.join(p.scores)}")
        if (b.resource is not None) + (b.score is not None) + b.loss != 1:
            yield Fault(pointer("budgets", i), 'limits one thing: give "resource", "score" or "loss": true')
        if b.max is None and b.min is None:
            yield Fault(pointer("budgets", i), "has neither max nor min; add one or remove the row")
        for side, limit in (("max", b.max), ("min", b.min)):
            if limit is not None and not _finite(limit):
                yield Fault(pointer("budgets", i, side), "numbers must be finite")
        if b.loss and b.tags is not None:
            yield Fault(pointer("budgets", i, "tags"), "a loss row covers all groups; remove the tags")
        if b.include_remainder and b.score is None:
            yield Fault(pointer("budgets", i, "include_remainder"), "belongs to score rows only")
        if b.tags is not None and not b.tags:
            yield Fault(pointer("budgets", i, "tags"), "is empty; leave it out to mean all groups")
        for tag in b.tags or ():
            if tag not in known_tags:
                yield Fault(pointer("budgets", i, "tags"), f"no group has the tag {tag!r}")


def _relations(p: Problem) -> Iterator[Fault]:
    if p.loss.aggregate != "sum":
        for i, part in enumerate(p.interactions):
            if part.score in p.loss.terms:
                yield Fault(
                    "/loss/aggregate",
                    f"{p.loss.aggregate!r} does not go with interactions on its term {part.score!r} "
                    f"(/interactions/{i}); use 'sum' or take the interactions out",
                )
    if p.loss.aggregate == "pnorm":
        for row in _first(p.unary < 0):
            yield Fault(_choice(p, row, "score"), f"a p-norm needs unaries of 0 or more, this one is {p.unary[row]}")
    yield from _overflows(p)
    for g, row in p.pins.items():
        name = p.group_names[g]
        if p.group_of[row] != g:
            yield Fault(pointer("pins", name), "points to a choice of another group")
        elif p.allowed is not None and not p.allowed[row]:
            choice = p.choice_name(row)
            yield Fault(pointer("pins", name), f"choice {choice!r} is not allowed; allow it or drop the pin")
    for i, c in enumerate(p.couplings):
        rows = c.rows if isinstance(c, Cardinality) else (c.if_row, c.then_row) if isinstance(c, Implies) else ()
        groups = c.groups if isinstance(c, SameChoice | MaxDistinct) else ()
        if any(not 0 <= r < p.choice_count for r in rows) or any(not 0 <= g < p.group_count for g in groups):
            yield Fault(pointer("couplings", i), "names a group or choice that does not exist")
        if isinstance(c, SameChoice | MaxDistinct) and not groups:
            yield Fault(pointer("couplings", i, "groups"), "is empty; name the groups")
        if isinstance(c, Cardinality) and not rows:
            yield Fault(pointer("couplings", i, "choices"), "is empty; name the choices")
        if isinstance(c, Cardinality) and len(set(rows)) < len(rows):
            yield Fault(pointer("couplings", i, "choices"), "names one choice twice")


def _overflows(p: Problem) -> Iterator[Fault]:
    """Numbers whose sums or products could leave the range of floats."""
    columns: list[tuple[str, str, NDArray[Any]]] = [("cost", r, v) for r, v in p.costs.items()]
    columns += [("score", s, v) for s, v in p.scores.items()] + [("remainder", s, v) for s, v in p.remainder.items()]
    for part, name, column in columns:
        if not _most(column) < LARGEST:
            row = int(np.abs(column).argmax())
            yield Fault(_choice(p, row, part, name), "is too large to be added up; scale these numbers down")
            return
    with np.errstate(over="ignore", invalid="ignore"):
        loss = _most(p.unary)
        if not loss < LARGEST:
            row = int(np.abs(p.unary).argmax())
            yield Fault(_choice(p, row, "score"), "times its weight is too large; scale the scores or the weights down")
            return
        for i, interaction in enumerate(p.interactions):
            loss += _reach(p, interaction) * max(p.loss.terms.get(interaction.score, 0.0), 1.0)
            if not loss < LARGEST:
                yield Fault(pointer("interactions", i), "adds up to more than floats hold; scale its numbers down")
                return
    for name, weight in p.minimize.items():
        size = loss if name == "loss" else _most(p.costs[name]) + abs(float(p.resources[name].offset))
        if not abs(weight) * size < LARGEST:
            yield Fault(pointer("minimize", name), "times its weight is too large; scale the weight down")


def _reach(p: Problem, part: Pairs | Basis) -> float:
    """No loss of this interaction is larger: Σ |pairs|, or Σ_i (|e_i| + 1)·(Σ_g max_k |v_gi|)²."""
    if isinstance(part, Pairs):
        return float(np.abs(part.value).sum())
    largest = np.maximum.reduceat(np.abs(part.vectors.astype(np.float64)), p.indptr[:-1], axis=0).sum(axis=0)
    return float((np.abs(part.eigenvalues) + 1) @ largest**2)


def _most(column: NDArray[Any]) -> float:
    """No sum over the column is larger; infinite or NaN where its entries are."""
    return max(abs(float(column.max())), abs(float(column.min()))) * len(column)


def warnings_of(p: Problem) -> tuple[str, ...]:
    """What is allowed but probably not meant."""
    found = []
    targets = {str(p.score_specs[s]["target"]) for s in p.loss.terms if "target" in p.score_specs[s]}
    if len(targets) > 1:
        found.append(f"the loss adds scores of different targets ({', '.join(sorted(targets))}): their sum has no unit")
    known = set(p.label_codes.table)
    for i, c in enumerate(p.couplings):
        if isinstance(c, MaxDistinct) and c.ignore - known:
            found.append(f"/couplings/{i}/ignore: no choice has the label {sorted(c.ignore - known)}")
    return tuple(found)


def _finite(number: float) -> bool:
    """Finite, and far enough from the end of the range that it can be computed with."""
    return -LARGEST < number < LARGEST


def _first(mask: NDArray[np.bool_] | np.bool_) -> list[int]:
    found: list[int] = np.flatnonzero(mask)[:MOST_FAULTS].tolist()
    return found


def _choice(p: Problem, row: int, *rest: str) -> str:
    return pointer("groups", int(p.group_of[row]), "choices", int(p.places[row]), *rest)
