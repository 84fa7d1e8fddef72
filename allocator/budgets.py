"""Budgets as people write them: `100000`, `12MB`, `1.5GiB`, `4.25bits`, `25%`, `min:V`, and `resource=` before each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from allocator.errors import UsageError
from allocator.evaluation import resource_use
from allocator.problem import Problem
from allocator.statement import Number

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%|bits?|(?:[kmgt]i?)?b)?$", re.IGNORECASE | re.ASCII)
_HELP = "write a number, 12MB, 1.5GiB, 4.25bits or 25%, with min: before it for a lower limit"


def apply_budgets(
    problem: Problem,
    budgets: Mapping[str, Number | str] | Sequence[str] | str | Number | None,
    resource: str | None = None,
) -> Problem:
    """The problem with these budgets instead of its unscoped rows of the same resources.

    Args:
        problem: any problem.
        budgets: "V", "resource=V", a list of them, or resource → V.
        resource: what a value without `resource=` limits; default the only budgeted one.

    Raises:
        UsageError: a budget that cannot be read or does not fit the resource.
    """
    if budgets is None:
        return problem
    if isinstance(budgets, Mapping):
        wanted = [(r, str(v)) for r, v in budgets.items()]
    else:
        texts = [str(budgets)] if isinstance(budgets, str | int | float | Real) else [str(b) for b in budgets]
        wanted = [_split(problem, text, resource) for text in texts]
    rows: dict[str, dict[str, Number]] = {}
    for name, text in wanted:
        side = "min" if text.startswith("min:") else "max"
        sides = rows.setdefault(_known(problem, name), {})
        if side in sides:
            raise UsageError(f"budget {name}: two values for its {side}; give one")
        sides[side] = resolve(problem, name, text.removeprefix("min:"))
    for name, sides in rows.items():
        problem = problem.with_budget(name, sides.get("max"), sides.get("min"))
    return problem


def qualified(problem: Problem, texts: Sequence[str], resource: str | None) -> list[str]:
    """The same budgets, each with its resource in front."""
    return ["=".join(_split(problem, text, resource)) for text in texts]


def _split(problem: Problem, text: str, resource: str | None) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if equals:
        return name.strip(), value.strip()
    if resource is not None:
        return resource, text.strip()
    budgeted = list(dict.fromkeys(b.resource for b in problem.budgets if b.resource is not None and b.tags is None))
    candidates = budgeted or list(problem.costs)
    if len(candidates) != 1:
        known = ", ".join(candidates)
        raise UsageError(f"budget {text!r}: say of which resource, as in {candidates[0]}={text} ({known})")
    return candidates[0], text.strip()


def _known(problem: Problem, name: str) -> str:
    if name not in problem.costs:
        raise UsageError(f"budget {name!r}: there is no such resource; known: {', '.join(problem.costs)}")
    return name


def resolve(problem: Problem, resource: str, text: str) -> Number:
    """The number, in the resource's unit, that a budget's text stands for."""
    spec = problem.resources[_known(problem, resource)]
    match = _FORM.match(text.strip())
    if match is None:
        raise UsageError(f"budget {resource}={text}: cannot be read; {_HELP}")
    number, unit = float(match[1]), (match[2] or "")
    if not math.isfinite(number):
        raise UsageError(f"budget {resource}={text}: is not finite")
    if not unit:
        return int(match[1]) if re.fullmatch(r"[+-]?\d+", match[1]) else number
    if unit == "%":
        return _tidy(number * reference_total(problem, resource) / 100)
    if spec.unit not in ("byte", "bit"):
        raise UsageError(
            f"budget {resource}={text}: {resource} is counted in {spec.unit!r}, not bytes or bits; give a plain number"
        )
    if unit.lower().startswith("bit"):
        return _bits_per_weight(problem, resource, number)
    size = number * _SIZES[unit[:-1].lower()]
    return _tidy(size * 8 if spec.unit == "bit" else size)


def _bits_per_weight(problem: Problem, resource: str, bits: float) -> Number:
    spec = problem.resources[resource]
    if spec.aggregate != "sum":
        raise UsageError(f"budget {resource}: bits per weight need a resource that sums, {resource} takes the maximum")
    if problem.weights is None or (problem.weights < 0).any():
        g = 0 if problem.weights is None else int(np.argmin(problem.weights))
        raise UsageError(f"budget {resource}: bits per weight need `weights` everywhere; {_name(problem, g)} has none")
    total = bits * sum(problem.weights.tolist())
    return _tidy((total / 8 if spec.unit == "byte" else total) + spec.offset)


def reference_total(problem: Problem, resource: str) -> Number:
    """Total of the reference allocation, or of each group's dearest allowed choice; offset included."""
    if problem.reference is None:
        column = problem.cost(resource)
        allowed = np.ones(problem.choice_count, bool) if problem.allowed is None else problem.allowed
        empty = np.flatnonzero(~np.logical_or.reduceat(allowed, problem.indptr[:-1]))
        if len(empty):
            raise UsageError(f"budget {resource} in %: {_name(problem, int(empty[0]))} has no allowed choice")
        low = np.iinfo(np.int64).min if column.dtype == np.int64 else -np.inf
        dearest = np.maximum.reduceat(np.where(allowed, column, low), problem.indptr[:-1])
        spec = problem.resources[resource]
        if spec.aggregate == "max":
            most: Number = max(dearest.tolist())
            return max(spec.offset, most)
        return spec.offset + math.fsum(dearest.tolist())
    return resource_use(problem, reference_rows(problem), resource, None)


def reference_rows(problem: Problem) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of the reference allocation [G].

    Raises:
        UsageError: a group that it does not name, or a label that a group lacks or has twice.
    """
    reference = problem.reference
    rows = np.empty(problem.group_count, np.int64)
    if isinstance(reference, str):
        codes = problem.label_codes
        if reference not in codes.table:
            raise UsageError(f"reference: no choice has the label {reference!r}")
        hits = np.flatnonzero(codes.code == codes.table.index(reference))
        counts = np.bincount(problem.group_of[hits], minlength=problem.group_count)
        for g in np.flatnonzero(counts != 1)[:1].tolist():
            reason = "lacks it" if counts[g] == 0 else "has it twice"
            raise UsageError(f"reference: {_name(problem, g)} {reason} (label {reference!r})")
        return hits
    assert reference is not None
    for g, name in enumerate(problem.group_names):
        if name not in reference:
            raise UsageError(f"reference: does not name a choice for {_name(problem, g)}")
        rows[g] = problem.row(name, reference[name])
    return rows


def _name(problem: Problem, g: int) -> str:
    return f"group {problem.group_names[g]!r}"


def _tidy(number: float) -> Number:
    return int(number) if float(number).is_integer() else number
