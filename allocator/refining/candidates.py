"""Allocations that may be the best: by the profile, by measured divergences, with interactions, by logit sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from allocator.features import LINEAR
from allocator.interaction_search import InteractionSearch
from allocator.logit_sum import LogitSum, improve
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import DENSE, quadratic
from allocator.reduce import reduce
from allocator.refining.measuring import scaled, separable
from allocator.statement import IntArray

SHARES = (0.5, 1.0)
"""Of the interactions, to which measured ones are counted: too few samples make strong ones look better than true."""
KICKS = 10
"""Of a search with interactions: as good as annealing's 880 steps on 22 groups, in a tenth of its time."""
LOGIT_KICKS = 3
"""Of the search by logit sums, where each costs ten times as much."""
SEARCHED = LINEAR | {"pairs", "basis"}
WITH_COUPLINGS = "annealing"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """An allocation [G] and how it came about."""

    name: str
    choice: IntArray


def by_profile(problem: Problem, seed: int) -> list[Candidate]:
    """What the scores of the problem call best, with their interactions and without; none where none is feasible."""
    additive = _additive("profile", separable(problem), seed)
    if additive is None or not problem.active_interactions:
        return [] if additive is None else [additive]
    return [*_joint("profile", problem, additive, seed), replace(additive, name="profile, additive")]


def uniform(problem: Problem) -> list[Candidate]:
    """Every feasible allocation in which all groups with a choice left take one label.

    Where a group has several choices of the label, the one of least unary loss is taken.
    """
    codes, free = problem.label_codes, np.flatnonzero(problem.free)
    order = free[np.lexsort((problem.unary[free], codes.code[free], problem.group_of[free]))]
    group, code = problem.group_of[order], codes.code[order]
    first = np.concatenate([[True], (np.diff(group) != 0) | (np.diff(code) != 0)]) if len(order) else free > 0
    only = np.full(problem.group_count, -1, np.int64)
    only[problem.group_of[free]] = free
    open_ = np.bincount(problem.group_of[free], minlength=problem.group_count) > 1
    found = []
    for label in np.unique(code[open_[group]]).tolist():
        rows = np.where(open_, -1, only)
        taken = order[first & (code == label) & open_[group]]
        rows[problem.group_of[taken]] = taken
        if (rows >= 0).all() and problem.evaluate(rows - problem.indptr[:-1]).feasible:
            found.append(Candidate(f"uniform {codes.table[label]}", rows - problem.indptr[:-1]))
    return found


def by_measurement(
    problem: Problem, predictor: LogitSum, earlier: Sequence[Candidate], seed: int, progress: Progress
) -> Iterator[Candidate]:
    """What measured divergences call best: additive, with interactions, and by search on the logit sum from all these.

    Args:
        problem: with the measured loss, see `measuring.measured`.
        predictor: of whole allocations of that problem.
        earlier: feasible candidates, from which the search begins too.
        seed: of solvers and of the search.
        progress: told after each.
    """
    steps, found = len(SHARES) + 2, list(earlier)
    additive = _additive("measured, additive", separable(problem), seed)
    progress("refine: solving", 1, steps)
    if additive is not None:
        found.append(additive)
        yield additive
    for done, share in enumerate(SHARES, 2):
        if additive is not None and problem.active_interactions:
            name = f"measured, {share:g} of interactions"
            joint = _joint(name, scaled(problem, share), additive, seed)
            found += joint
            yield from joint
        progress("refine: solving", done, steps)
    starts = [one.choice for one in distinct(found)]
    improved = improve(problem, predictor, starts, kicks=LOGIT_KICKS, seed=seed)
    progress("refine: solving", steps, steps)
    yield Candidate("logit sum", improved.choice.astype(np.int64))


def distinct(found: Sequence[Candidate]) -> list[Candidate]:
    """Each allocation once, under all its names."""
    named: dict[bytes, Candidate] = {}
    for one in found:
        key = np.asarray(one.choice, np.int64).tobytes()
        named[key] = replace(named[key], name=f"{named[key].name}; {one.name}") if key in named else one
    return list(named.values())


def _additive(name: str, problem: Problem, seed: int, solver: str = "auto") -> Candidate | None:
    """The solver's allocation; None where it found none."""
    solution = solve(problem, solver, seed=seed, threads=1)
    if solution.allocation is None:
        return None
    return Candidate(name, np.asarray(solution.allocation.choice, np.int64))


def _joint(name: str, problem: Problem, start: Candidate, seed: int) -> list[Candidate]:
    """The best allocation with interactions that a search from another one finds; the same for the same seed."""
    reduced = reduce(problem)
    if reduced.problem is None:
        return []
    if not reduced.problem.features <= SEARCHED or reduced.problem.choice_count > DENSE:
        found = _additive(name, problem, seed, WITH_COUPLINGS)
        return [] if found is None else [found]
    search = InteractionSearch(quadratic(reduced.problem), Limits(seed=seed))
    begun = reduced.contract(start.choice)
    if begun is not None:
        search.begin(reduced.problem.indptr[:-1] + begun)
    search.kick(KICKS, seed)
    return [] if search.choice is None else [Candidate(name, np.asarray(reduced.expand(search.choice), np.int64))]
