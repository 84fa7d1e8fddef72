"""stability(): how much of an allocation survives when its scores are redrawn from their standard errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.chosen import Given, chosen
from allocator.errors import UsageError
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.protocols import Solver
from allocator.statement import FloatArray, IntArray

QUANTILES = (0.05, 0.5, 0.95)
SHOWN = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Stability:
    """An allocation under redrawn scores; columns over the samples are nan where a sample has no such number.

    stated [G]: its rows. kept [N]: samples whose optimum takes each choice. best: the optimum's objective in each
    sample. objective: the stated allocation's there. regret = objective − best, nan where the redrawn scores make
    it break a row that limits the loss or a score. proved: samples whose optimum the core proved. solved: samples
    with an allocation. broken: samples in which the stated allocation breaks a row. clipped: share of redrawn
    numbers that a p-norm forbids (below 0) and that were set to 0.
    """

    problem: Problem
    stated: IntArray
    objective_as_filed: float
    samples: int
    seed: int
    correlated: bool
    kept: IntArray
    best: FloatArray
    objective: FloatArray
    regret: FloatArray
    solved: int
    proved: int
    broken: int
    clipped: float = 0.0
    limit: str | None = None

    @cached_property
    def share(self) -> FloatArray:
        """Share of the solved samples whose optimum takes each choice [N]."""
        return self.kept / max(self.solved, 1)

    @property
    def stays(self) -> FloatArray:
        """Share of the solved samples whose optimum keeps each group's stated choice [G]."""
        return self.share[self.stated]

    def flips(self, most: int | None = SHOWN) -> list[dict[str, Any]]:
        """Groups whose stated choice is not always kept, the least kept first: what the samples take, and how often."""
        problem, stays = self.problem, self.stays
        groups = np.flatnonzero(stays < 1)
        groups = groups[np.argsort(stays[groups], kind="stable")][:most]
        found = []
        for g in groups.tolist():
            rows = np.arange(problem.indptr[g], problem.indptr[g + 1])
            rows = rows[np.argsort(-self.kept[rows], kind="stable")]
            taken = {problem.choice_name(r): float(self.share[r]) for r in rows.tolist() if self.kept[r]}
            stated = problem.choice_name(int(self.stated[g]))
            found.append({"group": problem.group_names[g], "stated": stated, "stays": float(stays[g]), "taken": taken})
        return found

    def spread(self, column: FloatArray) -> dict[str, float | None]:
        """Mean, standard deviation and quantiles over the samples that have the number."""
        known = column[~np.isnan(column)]
        if not len(known):
            return dict.fromkeys(("mean", "sd", *(f"q{q:g}" for q in QUANTILES)))
        ends = np.quantile(known, QUANTILES).tolist()
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        named = {f"q{q:g}": end for q, end in zip(QUANTILES, ends, strict=True)}
        return {"mean": float(known.mean()), "sd": deviation, **named}

    def to_json(self, most: int | None = SHOWN) -> dict[str, Any]:
        """Plain data; `flips` holds at most so many groups."""
        stays = self.stays
        return {
            "samples": self.samples,
            "seed": self.seed,
            "correlated": self.correlated,
            "solved": self.solved,
            "proved": self.proved,
            "broken": self.broken,
            "clipped": self.clipped,
            "limit": self.limit,
            "objective_as_filed": self.objective_as_filed,
            "best": self.spread(self.best),
            "objective": self.spread(self.objective),
            "regret": self.spread(self.regret),
            "groups": len(stays),
            "groups_always_kept": int((stays == 1).sum()),
            "mean_share_kept": float(stays.mean()),
            "flips": self.flips(most),
        }


@dataclass(eq=False)
class _Tally:
    kept: IntArray
    best: list[float] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    regret: list[float] = field(default_factory=list)
    solved: int = 0
    proved: int = 0
    broken: int = 0
    clipped: int = 0
    drawn: int = 0


def stability(
    problem: Problem,
    solver: str | Solver = "auto",
    *,
    samples: int = 100,
    seed: int = 0,
    correlated: bool = False,
    solution: Given | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Stability:
    """Redraw the scores from their standard errors, solve again, and compare with the stated optimum.

    Each score becomes score + stderr · z with z standard normal, everywhere it counts: in the loss and in rows that
    limit it. Costs, interactions and standard errors stay. The problem that is solved again is the stated one: a
    `stderr_weight` keeps its place. Sample i is the same for every number of samples and every solver.

    Args:
        problem: with `stderr` for a score that its loss or a row reads.
        solver: as in `solve`, for the stated optimum and for every sample.
        samples: how many times the scores are redrawn.
        seed: of the draws, and of the solver.
        correlated: one z for all choices of a group, instead of one for each choice.
        solution: the stated allocation; default the problem's optimum.
        time_limit: seconds for each solve.
        progress: called with (what, done, total).
        options: of the solver, by name.

    Raises:
        UsageError: nothing to redraw, no allocation to start from, or an unknown solver.
    """
    if samples < 1:
        raise UsageError(f"samples {samples}: give 1 or more")
    names = _redrawn(problem)
    if not names:
        read = ", ".join(dict.fromkeys([*problem.loss.terms, *(b.score for b in problem.budgets if b.score)]))
        raise UsageError(f"no choice has a stderr above 0 for {read}: there is nothing to redraw; profile with errors")
    asked: dict[str, Any] = {"time_limit": time_limit, "seed": seed, **options}
    if solution is None:
        solved = solve(problem, solver, **asked)
        if solved.allocation is None:
            raise UsageError(f"no allocation to start from (status {solved.status!r}); allocator.conflict says why")
        solution = solved
    given = chosen(problem, solution)
    stated, rows = given.problem, given.outcome.rows
    choice = rows - stated.indptr[:-1]
    tally = _Tally(np.zeros(stated.choice_count, np.int64))
    tick = progress or silent
    limit, done = None, 0
    try:
        for problem_i in _draws(stated, names, samples, seed, correlated, tally):
            tick("scores redrawn and solved again", done, samples)
            _count(tally, problem_i, choice, solve(problem_i, solver, start=choice.tolist(), **asked))
            done += 1
    except KeyboardInterrupt:
        if not done:
            raise
        limit = "interrupt"
    return Stability(
        problem=stated,
        stated=rows,
        objective_as_filed=given.outcome.objective,
        samples=done,
        seed=seed,
        correlated=correlated,
        kept=tally.kept,
        best=np.array(tally.best[:done]),
        objective=np.array(tally.objective[:done]),
        regret=np.array(tally.regret[:done]),
        solved=tally.solved,
        proved=tally.proved,
        broken=tally.broken,
        clipped=tally.clipped / max(tally.drawn, 1),
        limit=limit,
    )


def _redrawn(problem: Problem) -> list[str]:
    """Scores that count and have errors, in a fixed order."""
    rows = {b.score for b in problem.budgets if b.score is not None}
    read = {s for s, weight in problem.loss.terms.items() if weight} | rows
    return sorted(s for s in read if s in problem.stderr and problem.stderr[s].any())


def _draws(
    problem: Problem, names: list[str], samples: int, seed: int, correlated: bool, tally: _Tally
) -> Iterator[Problem]:
    for i in range(samples):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        scores = dict(problem.scores)
        for name in names:
            count = problem.group_count if correlated else problem.choice_count
            z: NDArray[np.float64] = rng.standard_normal(count)
            scores[name] = scores[name] + problem.stderr[name] * (z[problem.group_of] if correlated else z)
            if problem.loss.aggregate == "pnorm":
                tally.drawn += len(scores[name])
                tally.clipped += int((scores[name] < 0).sum())
                scores[name] = np.maximum(scores[name], 0.0)
        yield problem.replace(scores=scores, file_sha256=None)


def _count(tally: _Tally, problem: Problem, choice: IntArray, solved: Any) -> None:
    stated = problem.evaluate(choice)
    feasible = stated.feasible
    tally.broken += not feasible
    best = np.nan
    if solved.allocation is not None:
        best = solved.objective
        tally.solved += 1
        tally.proved += solved.status == "optimal"
        tally.kept[solved.allocation.rows()] += 1
    tally.best.append(best)
    tally.objective.append(stated.objective)
    tally.regret.append(stated.objective - best if feasible else np.nan)
