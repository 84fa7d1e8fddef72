"""What differs between two solutions or two problems, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.formats.header import header_to_rows
from allocator.formats.rows import group_to_row, interactions_to_rows
from allocator.formats.types import SolutionFile
from allocator.problem import Problem
from allocator.statement import FloatArray, IntArray

Row: TypeAlias = Mapping[str, Any]
"""Of a problem.json in the row form."""
Key: TypeAlias = tuple[str, str]
"""Group and choice."""
UNTOLD = frozenset({"choices", "actions", "totals", "run", "format", "version"})
"""Fields of a solution that are compared one by one, or (`run`) not at all."""


@dataclass(frozen=True)
class Moved:
    """A column of numbers over the choices that both problems have.

    Attributes:
        differ: choices whose number differs.
        of: choices that both have.
        group: and
        choice: where the numbers are farthest apart; empty where none differs.
        pair: there, in the first and in the second problem.
        deviations: |difference| / √(σ² + σ²) there, if both problems give standard errors and one is above 0.
    """

    differ: int
    of: int
    group: str = ""
    choice: str = ""
    pair: tuple[float, float] = (0.0, 0.0)
    deviations: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        out: dict[str, Any] = {"differ": self.differ, "of": self.of}
        if self.differ:
            out["farthest"] = {"group": self.group, "choice": self.choice, "pair": list(self.pair)}
            if self.deviations is not None:
                out["farthest"]["deviations"] = self.deviations
        return out


@dataclass(frozen=True)
class SolutionDifference:
    """Of two solutions; every pair is (first, second), None where one has nothing.

    Attributes:
        fields: name to pair, of the fields that differ; of the actions, those of choices that are called the same.
            `run`, which says when and where, is not compared.
        totals: resource to pair, of those that differ.
        choices: group to pair, of those that differ.
        groups: of both together.
    """

    fields: Mapping[str, tuple[Any, Any]]
    totals: Mapping[str, tuple[Any, Any]]
    choices: Mapping[str, tuple[str | None, str | None]]
    groups: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.fields or self.totals or self.choices)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        parts = {"fields": self.fields, "totals": self.totals, "choices": self.choices}
        pairs = {name: {key: list(pair) for key, pair in part.items()} for name, part in parts.items()}
        return {"kind": "solution", "same": self.same, "groups": self.groups, **pairs}


@dataclass(frozen=True)
class ProblemDifference:
    """Of two problems.

    Attributes:
        fields: keys of the file (loss, budgets, interactions, …), of its groups (tags, …) and choices (action, …) whose
            content differs.
        only: groups, and "group: choice" of groups that both have, that only the first or only the second has.
        columns: "score kl", "stderr kl", "cost weight_bytes", … to what moved, of those that differ.
    """

    fields: Sequence[str]
    only: tuple[Sequence[str], Sequence[str]]
    columns: Mapping[str, Moved]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.fields or any(self.only) or self.columns)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": "problem",
            "same": self.same,
            "fields": list(self.fields),
            "only_first": list(self.only[0]),
            "only_second": list(self.only[1]),
            "columns": {name: moved.to_json() for name, moved in self.columns.items()},
        }


def between_solutions(first: SolutionFile, second: SolutionFile) -> SolutionDifference:
    """What differs; as `load_solution` gives them.

    Raises:
        UsageError: a solution that does not name its choices, as an npz does without its problem.
    """
    for one in (first, second):
        if one.choices is None and one.status in ("optimal", "feasible"):
            raise UsageError("a solution.npz holds no names: save the solution as .json to compare it")
    choices = _pairs(first.choices or {}, second.choices or {})
    fields = _pairs(*({key: value for key, value in _flat(one) if value is not None} for one in (first, second)))
    actions = _pairs(first.actions, second.actions)
    return SolutionDifference(
        fields=fields | {f"actions.{group}": pair for group, pair in actions.items() if group not in choices},
        totals=_pairs(first.totals, second.totals),
        choices=choices,
        groups=len({**(first.choices or {}), **(second.choices or {})}),
    )


def _flat(solution: SolutionFile) -> Iterable[tuple[str, Any]]:
    """Its fields, those of `solver`, `problem` and `modules` one by one."""
    for name, value in msgspec.to_builtins(solution).items():
        if isinstance(value, dict) and name not in UNTOLD:
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        elif name not in UNTOLD:
            yield name, value


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*first, *second))
    return {name: pair for name in names if (pair := (first.get(name), second.get(name)))[0] != pair[1]}


def between_problems(first: Problem, second: Problem) -> ProblemDifference:
    """What differs; groups and choices are found by name, so that their order does not count."""
    rows = [_rows(one) for one in (first, second)]
    shared = [key for key in rows[0] if key in rows[1]]
    at = [np.fromiter((found[key] for key in shared), np.int64, len(shared)) for found in rows]
    groups = [{name: group_to_row(one, g) for g, name in enumerate(one.group_names)} for one in (first, second)]
    columns: dict[str, Moved] = {}
    for part in NUMBERS:
        for name in dict.fromkeys((*getattr(first, part), *getattr(second, part))):
            moved = _moved(part, name, ((first, at[0]), (second, at[1])), shared)
            if moved.differ:
                columns[f"{NUMBERS[part]} {name}"] = moved
    one, other = (header_to_rows(problem) | interactions_to_rows(problem) for problem in (first, second))
    words = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
    words += _differ(*groups)
    words += [word for word in WORDS if (WORDS[word](first)[at[0]] != WORDS[word](second)[at[1]]).any()]
    return ProblemDifference(
        fields=words,
        only=(_lone(groups, rows), _lone(groups[::-1], rows[::-1])),
        columns=columns,
    )


def _rows(problem: Problem) -> dict[Key, int]:
    """Row of every choice."""
    groups = np.repeat(np.array(list(problem.group_names), object), problem.sizes)
    choices = problem.choice_names.resolved(problem.places)
    return {key: row for row, key in enumerate(zip(groups.tolist(), _texts(choices.table, choices.code), strict=True))}


def _texts(table: Sequence[str], code: NDArray[np.int32]) -> NDArray[np.object_]:
    """The string of each code; None for −1."""
    return np.array([*table, None], object)[code]


def _labels(problem: Problem) -> NDArray[np.object_]:
    if problem.labels is None:
        return np.full(problem.choice_count, None)
    return _texts(problem.labels.table, problem.labels.code)


def _actions(problem: Problem) -> NDArray[np.object_]:
    if problem.action_code is None:
        return np.full(problem.choice_count, None)
    written = [msgspec.json.encode(one, order="sorted").decode() for one in problem.action_table]
    return _texts(written, problem.action_code)


def _allowed(problem: Problem) -> NDArray[np.bool_]:
    return np.ones(problem.choice_count, bool) if problem.allowed is None else problem.allowed


NUMBERS = {"scores": "score", "stderr": "stderr", "remainder": "remainder", "costs": "cost"}
"""Columns of a problem, and what a row of the file calls one of their numbers."""
WORDS: Mapping[str, Callable[[Problem], NDArray[Any]]] = {"label": _labels, "action": _actions, "allowed": _allowed}
"""What a row of the file says of a choice besides."""


def _lone(groups: Sequence[Mapping[str, Row]], rows: Sequence[Mapping[Key, int]]) -> list[str]:
    """Groups of the first that the second lacks, and choices that it lacks of groups that it has."""
    choices = [
        f"{group}: {choice}" for group, choice in rows[0] if group in groups[1] and (group, choice) not in rows[1]
    ]
    return [group for group in groups[0] if group not in groups[1]] + choices


def _differ(first: Mapping[str, Row], second: Mapping[str, Row]) -> list[str]:
    """Keys of the groups that both have, where any differs."""
    pairs = [(row, second[key]) for key, row in first.items() if key in second]
    keys = dict.fromkeys(key for pair in pairs for row in pair for key in row)
    return [key for key in keys if any(one.get(key) != other.get(key) for one, other in pairs)]


def _moved(part: str, name: str, sides: Sequence[tuple[Problem, IntArray]], shared: Sequence[Key]) -> Moved:
    """Of one column, at the rows of each side that both have; a column that is not there is 0."""
    pair = [_column(part, name, *side) for side in sides]
    differ = pair[0] != pair[1]
    if not differ.any():
        return Moved(0, len(shared))
    apart = np.where(differ, np.abs(np.subtract(*pair, dtype=np.float64)), -1.0)
    row = int(apart.argmax())
    deviations = None
    if part == "scores":
        noise = math.hypot(*(_column("stderr", name, *side)[row] for side in sides))
        deviations = float(apart[row]) / noise if noise > 0 else None
    return Moved(int(differ.sum()), len(shared), *shared[row], (pair[0][row].item(), pair[1][row].item()), deviations)


def _column(part: str, name: str, problem: Problem, rows: IntArray) -> IntArray | FloatArray:
    found: IntArray | FloatArray | None = getattr(problem, part).get(name)
    return np.zeros(len(rows)) if found is None else found[rows]
