"""What differs between two solutions or two problems, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from allocator.errors import UsageError
from allocator.formats.rows import problem_to_rows
from allocator.formats.types import SolutionFile
from allocator.problem import Problem

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
    one, other = problem_to_rows(first), problem_to_rows(second)
    groups = [{row["name"]: row for row in rows.pop("groups")} for rows in (one, other)]
    choices = [_choices(rows) for rows in groups]
    shared = [key for key in choices[0] if key in choices[1]]
    numbers = [{key: dict(_numbers(rows[key])) for key in shared} for rows in choices]
    columns = dict.fromkeys(name for side in numbers for found in side.values() for name in found)
    moved = {name: _moved(name, *numbers) for name in columns}
    words = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
    words += _differ(groups[0], groups[1], without="choices")
    both = [{key: rows[key] for key in shared} for rows in choices]
    words += _differ(both[0], both[1], without="cost score stderr remainder")
    return ProblemDifference(
        fields=words,
        only=(_lone(*groups, *choices), _lone(*groups[::-1], *choices[::-1])),
        columns={name: what for name, what in moved.items() if what.differ},
    )


def _choices(groups: Mapping[str, Row]) -> dict[Key, Row]:
    return {(group, choice["name"]): choice for group, row in groups.items() for choice in row["choices"]}


def _lone(
    groups: Mapping[str, Row], others: Mapping[str, Row], own: Mapping[Key, Row], theirs: Mapping[Key, Row]
) -> list[str]:
    """Groups that the other problem lacks, and choices that it lacks of groups that it has."""
    choices = [f"{group}: {choice}" for group, choice in own if group in others and (group, choice) not in theirs]
    return [group for group in groups if group not in others] + choices


def _differ(first: Mapping[Any, Row], second: Mapping[Any, Row], without: str) -> list[str]:
    """Keys of the rows that both have, where any differs."""
    pairs = [(row, second[key]) for key, row in first.items() if key in second]
    keys = dict.fromkeys(key for pair in pairs for row in pair for key in row)
    left = (key for key in keys if key not in without.split())
    return [key for key in left if any(one.get(key) != other.get(key) for one, other in pairs)]


def _numbers(choice: Row) -> Iterable[tuple[str, float]]:
    for part in ("score", "stderr", "remainder", "cost"):
        yield from ((f"{part} {name}", value) for name, value in choice.get(part, {}).items())


def _moved(name: str, first: Mapping[Key, Mapping[str, float]], second: Mapping[Key, Mapping[str, float]]) -> Moved:
    """Of one column; a number that is not there is 0."""
    apart = {key: abs(second[key].get(name, 0.0) - row.get(name, 0.0)) for key, row in first.items()}
    differ = sum(value > 0 for value in apart.values())
    if not differ:
        return Moved(0, len(first))
    key = max(apart, key=apart.__getitem__)
    spread = "stderr " + name.removeprefix("score ")
    noise = math.hypot(first[key].get(spread, 0.0), second[key].get(spread, 0.0)) if name != spread else 0.0
    deviations = apart[key] / noise if noise > 0 else None
    return Moved(differ, len(first), *key, (first[key].get(name, 0.0), second[key].get(name, 0.0)), deviations)
