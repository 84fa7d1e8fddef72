"""frontier.json with names, and its compact npz form with indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.curve import Frontier
from allocator.errors import Fault, ProblemError, UsageError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.decode import decode
from allocator.formats.digest import content_sha256
from allocator.formats.files import read_bytes, write_bytes
from allocator.problem import Problem

Arrays = dict[str, NDArray[Any]]
OPTIONAL = {"steps": "int64", "hull": "bool", "optimal": "bool", "gaps": "float64"}
PER_POINT = ("steps", "costs", "objectives", "multipliers", "hull", "optimal", "gaps")


class PointRow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One point; changes: group → choice, for the groups that differ from the point before."""

    cost: int | float
    objective: float
    multiplier: float | None
    kind: Literal["hull", "exact"]
    status: Literal["optimal", "feasible"]
    gap: float | None
    changes: dict[str, str]


class FrontierFile(msgspec.Struct, kw_only=True):
    """frontier.json, version 1. base: group → choice at the first point, null without points."""

    format: Literal["allocation-frontier"]
    version: Literal[1]
    resource: str
    problem: dict[str, str | None]
    limit: str | None
    reasons: list[str]
    base: dict[str, str] | None
    points: list[PointRow]


class _Head(msgspec.Struct, kw_only=True):
    format: Literal["allocation-frontier"]
    version: Literal[1]
    resource: str
    problem: dict[str, str | None]
    limit: str | None
    reasons: list[str]


def _head(f: Frontier) -> dict[str, Any]:
    known = f.problem is not None
    identity = {
        "file_sha256": f.problem.file_sha256 if f.problem is not None else None,
        "sha256": content_sha256(f.problem) if known and f.problem is not None else f.sha256,
    }
    return {
        "format": "allocation-frontier", "version": 1, "resource": f.resource, "problem": identity,
        "limit": f.limit, "reasons": list(f.reasons),
    }  # fmt: skip


def frontier_to_json(f: Frontier) -> dict[str, Any]:
    """Plain data in the order of the format.

    Raises:
        UsageError: the frontier was loaded without its problem, so that nothing has a name.
    """
    if f.problem is None:
        raise UsageError("frontier: names need the problem; load_frontier(path, problem), or save it as .npz")
    head = _head(f)
    if not len(f):
        return head | {"base": None, "points": []}
    names, choice_names, indptr = f.problem.group_names, f.problem.choice_names, f.problem.indptr.tolist()

    def text(group: int, place: int) -> str:
        return choice_names.text(indptr[group] + place, place)

    first = f.allocation(0).tolist()
    now = dict(enumerate(first))
    group, choice, done = f.group.tolist(), f.choice.tolist(), f.changes(0)
    rows = []
    for i in range(len(f)):
        until = f.changes(i)
        latest = dict(zip(group[done:until], choice[done:until], strict=True))
        changes = {names[g]: text(g, k) for g, k in latest.items() if now[g] != k}
        now.update(latest)
        done = until
        p = f.point(i)
        rows.append(
            {"cost": p.cost, "objective": p.objective, "multiplier": p.multiplier, "kind": p.kind,
             "status": p.status, "gap": p.gap, "changes": changes}
        )  # fmt: skip
    return head | {"base": {names[g]: text(g, k) for g, k in enumerate(first)}, "points": rows}


def save_frontier(f: Frontier, path: str | Path) -> None:
    """Write frontier.json, or for a path that ends in .npz its arrays and `head`, the rest as JSON bytes."""
    if not str(path).endswith(".npz"):
        write_bytes(path, msgspec.json.format(msgspec.json.encode(frontier_to_json(f)), indent=1) + b"\n")
        return
    arrays: Arrays = {name: getattr(f, name) for name in ("base", "group", "choice", "costs", "objectives")}
    arrays["multipliers"] = f.multipliers
    arrays |= {name: getattr(f, name) for name in OPTIONAL if getattr(f, name) is not None}
    arrays["head"] = np.frombuffer(msgspec.json.encode(_head(f)), np.uint8)
    write_bytes(path, write_arrays(arrays))


def read_frontier(path: str | Path, problem: Problem | None = None) -> Frontier:
    """Read either form.

    Raises:
        ProblemError: the file breaks the format, or does not fit the problem.
        UsageError: a JSON file without the problem, whose names it uses.
    """
    data = read_bytes(path)
    if str(path).endswith(".npz"):
        return _from_arrays(read_arrays(data, str(path), "frontier"), str(path), problem)
    if problem is None:
        raise UsageError(f"{path}: names choices; load_frontier(path, problem) needs the problem, an npz does not")
    return _from_names(decode(data, FrontierFile, "frontier"), problem)


def _fault(where: str, message: str) -> ProblemError:
    return ProblemError([Fault(where, message)], "frontier")


def _from_arrays(arrays: Arrays, where: str, problem: Problem | None) -> Frontier:
    def take(name: str, kinds: tuple[str, ...]) -> NDArray[Any]:
        if name not in arrays:
            raise _fault(f"{where}:{name}", "is missing")
        array = arrays.pop(name)
        if array.dtype.name not in kinds or array.ndim != 1:
            raise _fault(f"{where}:{name}", f"is {array.dtype.name} {array.shape}; expected {' or '.join(kinds)} [·]")
        return array

    head = decode(take("head", ("uint8",)).tobytes(), _Head, "frontier")
    columns = {name: take(name, ("int32",)) for name in ("base", "group", "choice")}
    columns["costs"] = take("costs", ("int64", "float64"))
    columns |= {name: take(name, ("float64",)) for name in ("objectives", "multipliers")}
    columns |= {name: take(name, (kind,)) for name, kind in OPTIONAL.items() if name in arrays}
    if arrays:
        raise _fault(f"{where}:{next(iter(arrays))}", "is not an array of the format")
    _check(columns, where, problem)
    return Frontier(
        problem=problem, resource=head.resource, limit=head.limit, reasons=tuple(head.reasons),
        sha256=head.problem.get("sha256"), **columns,
    )  # fmt: skip


def _check(columns: Arrays, where: str, problem: Problem | None) -> None:
    """Shapes that fit together, indices that exist, costs that rise and objectives that fall."""
    count, moves, groups = len(columns["costs"]), len(columns["group"]), len(columns["base"])
    for name in PER_POINT:
        if name in columns and len(columns[name]) != count:
            raise _fault(f"{where}:{name}", f"has {len(columns[name])} entries for {count} points")
    steps = columns.get("steps", np.arange(count))
    if len(columns["choice"]) != moves or (count and (steps[0] < 0 or steps[-1] > moves)) or (np.diff(steps) < 0).any():
        raise _fault(f"{where}:group", "group, choice and steps do not count the same changes")
    if moves and (columns["group"].min() < 0 or columns["group"].max() >= groups):
        raise _fault(f"{where}:group", f"names a group outside 0 … {groups - 1}")
    for name in ("costs", "objectives"):
        if not np.isfinite(columns[name]).all():
            raise _fault(f"{where}:{name}", "numbers must be finite")
    if (columns["costs"][1:] <= columns["costs"][:-1]).any() or (np.diff(columns["objectives"]) >= 0).any():
        raise _fault(f"{where}:costs", "costs must rise and objectives fall from point to point")
    if problem is None or not count:
        return
    if groups != problem.group_count:
        raise _fault(f"{where}:base", f"has {groups} groups, the problem {problem.group_count}")
    for name, owner in (("base", np.arange(groups)), ("choice", columns["group"])):
        if ((columns[name] < 0) | (columns[name] >= problem.sizes[owner])).any():
            raise _fault(f"{where}:{name}", "takes a choice that its group does not have")


def _from_names(file: FrontierFile, problem: Problem) -> Frontier:
    def row(pointer: str, group: str, choice: str) -> tuple[int, int]:
        try:
            g = problem.group_names.position[group]
            return g, problem.row(group, choice) - int(problem.indptr[g])
        except KeyError as error:
            raise _fault(pointer, f"the problem has no {error.args[0]!r}") from None

    base = dict(row("/base", g, c) for g, c in (file.base or {}).items())
    if file.points and len(base) != problem.group_count:
        raise _fault("/base", f"names {len(base)} groups, the problem has {problem.group_count}")
    moves = [[row(f"/points/{i}", g, c) for g, c in p.changes.items()] for i, p in enumerate(file.points)]
    flat = [m for point in moves for m in point]
    whole = all(isinstance(p.cost, int) for p in file.points)
    nan = float("nan")
    columns: Arrays = {
        "base": np.array([base[g] for g in range(len(base))], np.int32),
        "group": np.array([g for g, _ in flat], np.int32),
        "choice": np.array([k for _, k in flat], np.int32),
        "steps": np.cumsum([len(point) for point in moves], dtype=np.int64),
        "costs": np.array([p.cost for p in file.points], np.int64 if whole else np.float64),
        "objectives": np.array([p.objective for p in file.points], np.float64),
        "multipliers": np.array([nan if p.multiplier is None else p.multiplier for p in file.points], np.float64),
        "hull": np.array([p.kind == "hull" for p in file.points], bool),
        "optimal": np.array([p.status == "optimal" for p in file.points], bool),
        "gaps": np.array([nan if p.gap is None else p.gap for p in file.points], np.float64),
    }
    if file.resource not in problem.costs:
        raise _fault("/resource", f"the problem has no {file.resource!r}")
    if not problem.exact(file.resource):
        columns["costs"] = columns["costs"].astype(np.float64)
    _check(columns, "frontier", problem)
    return Frontier(
        problem=problem, resource=file.resource, limit=file.limit, reasons=tuple(file.reasons),
        sha256=file.problem.get("sha256"), **columns,
    )  # fmt: skip
