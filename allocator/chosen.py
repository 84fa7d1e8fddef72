"""The allocation that a solution holds, read as one of a problem that may have changed since."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.evaluation import Outcome
from allocator.formats.archive import read_arrays
from allocator.formats.digest import content_sha256
from allocator.formats.files import read_bytes
from allocator.formats.solutions import load_solution
from allocator.formats.types import SolutionFile
from allocator.problem import Problem
from allocator.solution import Solution
from allocator.statement import IntArray

NAMED = 5  # groups that a message names

Given = Solution | SolutionFile | str | Path | Mapping[str, str] | Sequence[int] | NDArray[Any]


@dataclass(frozen=True, eq=False)
class Chosen:
    """An allocation of a problem as it was solved.

    problem: with the budgets and the objective that the solution was asked for. outcome: its evaluation.
    multipliers: the solution's, per budget row; None where it has none for this problem. status: what was proved
    of it, None where that was of another problem. warnings: what does not fit, in words.
    """

    problem: Problem
    outcome: Outcome
    multipliers: tuple[float | None, ...] | None
    status: str | None
    warnings: tuple[str, ...]


def chosen(problem: Problem, solution: Given) -> Chosen:
    """Read a solution, a solution file, its path, a mapping group → choice, or indices within the groups [G].

    Raises:
        UsageError: there is no allocation in it, or it does not say a choice of this problem for each group.
        ProblemError: the file breaks the format.
    """
    if isinstance(solution, str | Path):
        file = load_solution(solution)
        choice = None
        if str(solution).endswith(".npz"):
            choice = read_arrays(read_bytes(solution), str(solution), "solution")["choice"]
            choice = choice if len(choice) else None
        return _from_head(problem, file, choice, _same_content(problem, file.problem))
    if isinstance(solution, SolutionFile):
        return _from_head(problem, solution, None, _same_content(problem, solution.problem))
    if isinstance(solution, Solution):
        allocation = solution.allocation
        same = allocation is not None and (
            _same_parts(problem, allocation.problem, solution.problem) or _same_content(problem, solution.problem)
        )
        index = allocation.choice if allocation is not None and same else None
        return _from_head(problem, solution, index, same)
    if isinstance(solution, Mapping):
        rows, extra = _rows(problem, solution)
        return Chosen(problem, Outcome(problem, rows), None, None, extra)
    return Chosen(problem, _evaluated(problem, np.asarray(solution)), None, None, ())


def _evaluated(problem: Problem, choice: NDArray[Any]) -> Outcome:
    try:
        return problem.evaluate(choice)
    except ValueError as error:
        raise UsageError(f"the solution does not belong to this problem: {error}") from None


def _from_head(problem: Problem, head: Solution | SolutionFile, choice: NDArray[Any] | None, same: bool) -> Chosen:
    held = head.allocation is not None if isinstance(head, Solution) else bool(head.choices) or choice is not None
    if not held:
        raise UsageError(
            f"the solution holds no allocation (status {head.status!r}); `allocator explain FILE` without it, or "
            "allocator.conflict(problem), says what excludes each other"
        )
    stated, warnings = _overridden(problem, head.problem.get("overrides") or {})
    if not same:
        old, new = (str(s)[:12] for s in (head.problem.get("sha256"), content_sha256(problem)))
        warnings.insert(
            0,
            f"the solution was made for another problem, or for another version of this one (content {old}…, here "
            f"{new}…): loss, totals and prices below are worked out anew, and nothing is proved of them",
        )
    if choice is not None:
        outcome = _evaluated(stated, choice)
    else:
        rows, extra = _rows(stated, _named(head) if isinstance(head, Solution) else head.choices or {})
        outcome = Outcome(stated, rows)
        warnings += extra
    multipliers = tuple(head.multipliers)
    known = same and len(multipliers) == len(stated.budgets) and any(m is not None for m in multipliers)
    return Chosen(stated, outcome, multipliers if known else None, head.status if same else None, tuple(warnings))


def _same_parts(problem: Problem, solved: Problem, identity: Mapping[str, Any]) -> bool:
    """Whether a problem with a solution's overrides is what was solved, told without looking at the numbers."""
    stated, _ = _overridden(problem, identity.get("overrides") or {})
    names = [f.name for f in dataclasses.fields(Problem) if f.name not in ("budgets", "file_sha256")]
    return stated.budgets == solved.budgets and all(getattr(stated, name) is getattr(solved, name) for name in names)


def _same_content(problem: Problem, identity: Mapping[str, Any]) -> bool:
    """By the hash of the content; that of the file outlives changes in memory."""
    return identity.get("sha256") == content_sha256(problem)


def _overridden(problem: Problem, overrides: Mapping[str, Any]) -> tuple[Problem, list[str]]:
    """The problem under the budgets and the objective that a solution was asked for."""
    warnings = []
    for name, change in overrides.items():
        if isinstance(change, str) and change in problem.scores:
            problem = problem.with_loss(change)
        elif isinstance(change, Mapping) and name in problem.costs:
            problem = problem.with_budget(name, change.get("max"), change.get("min"))
        else:
            warnings.append(f"the solution was asked for {name} {change}, which this problem does not have")
    return problem, warnings


def _named(solution: Solution) -> dict[str, str]:
    """Group → choice, all at once: one by one is slow for many groups."""
    assert solution.allocation is not None
    solved = solution.allocation.problem
    names = solved.choice_names.resolved(solved.places)
    codes = names.code[solution.allocation.rows()].tolist()
    return {g: names.table[c] for g, c in zip(solved.group_names, codes, strict=True)}


def _rows(problem: Problem, choices: Mapping[str, str]) -> tuple[IntArray, tuple[str, ...]]:
    """Rows of named choices [G], and what the names say beyond this problem."""
    names = problem.choice_names.resolved(problem.places)
    code_of = {text: code for code, text in enumerate(names.table)}
    wanted = np.array([code_of.get(choices.get(g, ""), -1) for g in problem.group_names], np.int64)
    hits = np.flatnonzero(names.code == np.repeat(wanted, problem.sizes))
    rows = np.full(problem.group_count, -1, np.int64)
    rows[problem.group_of[hits]] = hits
    missing = np.flatnonzero(rows < 0).tolist()
    if missing:
        named = ", ".join(f"{problem.group_names[g]!r}" for g in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise UsageError(
            f"the solution names no choice of this problem for group {named}{more}; solve this version of the problem"
        )
    unknown = len(choices) - problem.group_count
    return rows, (f"the solution names {unknown} groups that this problem does not have",) if unknown else ()
