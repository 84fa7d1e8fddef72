"""Allocations that may be the best: by the profile, by measured divergences, with interactions, by logit sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from allocator.apart import apart
from allocator.features import LINEAR
from allocator.hygiene import scaled, separable
from allocator.logit_sum import LogitSum, improve
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress
from allocator.reduce import reduce
from allocator.statement import IntArray

SHARES = {0.25: " 1/4", 0.5: " 1/2", 0.75: " 3/4", 1.0: ""}
"""Of the interactions, besides none: few samples make them look stronger than they are, by how much is not known."""
WITH_INTERACTIONS = {"solver": "quadratic", "nodes": 0, "effort": 0.01}
"""No proof, which a candidate needs not and which costs up to a thousand times the search. So few iterations found what
thirty times as many find in 120 of 120 problems of 18 and 22 layers; seeds and iterations decide, not time."""
UNCOUPLED = LINEAR | {"pairs", "basis"}
WITH_COUPLINGS = {"solver": "annealing"}
"""For two of the shares alone, since it takes twenty times as long."""
LOGIT_STARTS, LOGIT_KICKS = 4, 3
"""Of the search by logit sums, where each costs as much as a whole search with interactions."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An allocation [G] and how it came about; several ways are joined by semicolons."""

    name: str
    choice: IntArray

    @property
    def names(self) -> tuple[str, ...]:
        """Each way."""
        return tuple(self.name.split("; "))


def by_profile(problem: Problem, seed: int) -> list[Candidate]:
    """What the scores of the problem call best, without interactions and with shares of them; [] if nothing fits."""
    return list(_by_model("profile", problem, seed))


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
    """What measured divergences call best: without interactions, with shares of them, and by logit sums from the best.

    Where there are several kinds of compression, each is also searched alone, and the last search begins there too: so
    a richer menu is never predicted worse than a part of it.

    Args:
        problem: with the measured loss, see `measuring.measured`.
        predictor: of whole allocations of that problem.
        earlier: feasible candidates, from which the search begins too.
        seed: of solvers and of the search.
        progress: told after each.
    """
    kinds = apart(problem)
    steps, found = len(SHARES) + 2 + len(kinds), list(earlier)
    for done, one in enumerate(_by_model("measured", problem, seed), 1):
        progress("refine: solving", done, steps)
        found.append(one)
        yield one
    for done, (name, alone) in enumerate(kinds.items(), len(SHARES) + 2):
        own = list(_by_model("measured", alone, seed))
        progress("refine: solving", done, steps)
        if own:
            found.append(_by_logits(f"{name} alone", alone, predictor, own, seed))
            yield found[-1]
    progress("refine: solving", steps, steps)
    yield _by_logits("logit sum", problem, predictor, found, seed)


def _by_logits(name: str, problem: Problem, predictor: LogitSum, found: Sequence[Candidate], seed: int) -> Candidate:
    """Where the search by logit sums ends from the best of these."""
    starts = sorted((one.choice for one in distinct(found)), key=predictor.predict)
    improved = improve(problem, predictor, starts[:LOGIT_STARTS], kicks=LOGIT_KICKS, seed=seed)
    return Candidate(name, improved.choice.astype(np.int64))


def distinct(found: Sequence[Candidate]) -> list[Candidate]:
    """Each allocation once, under all its names."""
    named: dict[bytes, Candidate] = {}
    for one in found:
        key = np.asarray(one.choice, np.int64).tobytes()
        named[key] = replace(named[key], name=f"{named[key].name}; {one.name}") if key in named else one
    return list(named.values())


def _by_model(origin: str, problem: Problem, seed: int) -> Iterator[Candidate]:
    """The additive optimum first; then with rising shares of the interactions, each search from the result before."""
    last = _solved(separable(problem), None, {"solver": "auto"}, seed)
    if last is None:
        return
    joint = bool(problem.active_interactions)
    yield Candidate(f"{origin}, additive" if joint else origin, last)
    if not joint:
        return
    reduced = reduce(problem).problem
    coupled = reduced is not None and not reduced.features <= UNCOUPLED
    for share, name in SHARES.items():
        if coupled and share not in (0.5, 1.0):
            continue
        found = _solved(scaled(problem, share), last, WITH_COUPLINGS if coupled else WITH_INTERACTIONS, seed)
        if found is not None:
            last = found
            yield Candidate(origin + name, found)


def _solved(problem: Problem, start: IntArray | None, options: Mapping[str, Any], seed: int) -> IntArray | None:
    """The solver's allocation [G], the same for the same seed; None where it found none."""
    begun = None if start is None else start.tolist()
    solution = solve(problem, seed=seed, threads=1, start=begun, **options)
    return None if solution.allocation is None else np.asarray(solution.allocation.choice, np.int64)
