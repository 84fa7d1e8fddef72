"""Allocations that may be the best: by the profile, by measured divergences, with interactions, by logit sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from allocator.logit_sum import LogitSum, improve
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.refining.measuring import scaled, separable
from allocator.statement import IntArray

SHARES = (0.5, 1.0)
"""Of the interactions, to which measured ones are counted: too few samples make strong ones look better than true."""
KICKS = 10
INTERACTIONS = "annealing"
"""For losses with interactions: within a second, and the same for the same seed."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """An allocation [G] and how it came about."""

    name: str
    choice: IntArray


def by_profile(problem: Problem, seed: int) -> list[Candidate]:
    """What the scores of the problem call best, with their interactions and without, and the best uniform one."""
    found = [_solved("profile", problem, seed)]
    if problem.active_interactions:
        found.append(_solved("profile, additive", separable(problem), seed))
    found.append(_solved("uniform", problem, seed, "uniform"))
    return [one for one in found if one is not None]


def by_measurement(
    problem: Problem, predictor: LogitSum, earlier: list[Candidate], seed: int, progress: Progress
) -> Iterator[Candidate]:
    """What measured divergences call best: additive, with interactions, and by search on the logit sum from all these.

    Args:
        problem: with the measured loss, see `measuring.measured`.
        predictor: of whole allocations of that problem.
        earlier: candidates of the profile, from which the search begins too.
        seed: of solvers and of the search.
        progress: told after each.
    """
    variants = [("measured, additive", separable(problem))]
    if problem.active_interactions:
        variants += [(f"measured, {share:g} of interactions", scaled(problem, share)) for share in SHARES]
    starts = [one.choice for one in earlier if problem.evaluate(one.choice).feasible]
    for done, (name, variant) in enumerate(variants, 1):
        one = _solved(name, variant, seed)
        progress("refine: solving", done, len(variants) + 1)
        if one is not None:
            starts.append(one.choice)
            yield one
    improved = improve(problem, predictor, starts, kicks=KICKS, seed=seed)
    progress("refine: solving", len(variants) + 1, len(variants) + 1)
    yield Candidate("logit sum", improved.choice.astype(np.int64))


def distinct(found: list[Candidate]) -> list[Candidate]:
    """Each allocation once, under all its names."""
    named: dict[bytes, Candidate] = {}
    for one in found:
        key = np.asarray(one.choice, np.int64).tobytes()
        named[key] = replace(named[key], name=f"{named[key].name}; {one.name}") if key in named else one
    return list(named.values())


def _solved(name: str, problem: Problem, seed: int, solver: str = "auto") -> Candidate | None:
    """The solver's allocation; None where it found none."""
    if solver == "auto" and problem.active_interactions:
        solver = INTERACTIONS
    solution = solve(problem, solver, seed=seed, threads=1)
    if solution.allocation is None:
        return None
    return Candidate(name, np.asarray(solution.allocation.choice, np.int64))
