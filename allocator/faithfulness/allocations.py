"""Which allocations are measured: single choices, random ones in several regions, uniform ones and optimal ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from allocator.faithfulness.predicting import Predictor
from allocator.formats.digest import content_sha256
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress
from allocator.statement import BoolArray, FloatArray, IntArray
from profilers._parts import Parts

REGIONS = ("all", "low", "middle", "high")
WIDTHS: Mapping[str, tuple[int, int]] = {"low": (2, 4), "middle": (3, 6), "high": (5, 8)}
BUDGETS = 6
SOLVE_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Whole:
    """A choice for every group.

    Attributes:
        kind: one of `REGIONS`, ``uniform`` or ``optimal``.
        rows: the taken row of every group [G].
        about: the label of a uniform one; the predictor and the budget of an optimal one.
    """

    kind: str
    rows: IntArray
    about: str = ""


@dataclass(frozen=True, eq=False)
class Region:
    """Choices that random allocations of a kind are drawn from: a mask over the rows [N], and what it is in words."""

    name: str
    rows: BoolArray
    about: str


def single_rows(problem: Problem, count: int | None, rng: np.random.Generator) -> IntArray:
    """Rows that may be taken; ``count`` of them drawn without replacement, all for None."""
    free = np.flatnonzero(problem.free)
    if count is None or count >= len(free):
        return free
    return np.sort(rng.choice(free, count, replace=False))


def regions(problem: Problem, resource: str) -> list[Region]:
    """All choices, and three narrower regions, since a wide range of losses alone makes any score rank well.

    Where three labels or more are widths (``int4``, ``int4_g128``), the regions are the widths 2 to 4, 3 to 6 and 5
    to 8; one that holds a single label of the file takes the next lower one too. Elsewhere they are the cheap, the
    middle and the dear third of each group's choices, two at least. A group with nothing in a region takes any choice.
    """
    codes = problem.label_codes
    widths = {label: int(m[1]) for label in codes.table if (m := re.match(r"int(\d+)(_|$)", label))}
    found = [Region("all", problem.free, "every choice")]
    if len({w for w in widths.values() if 2 <= w <= 8}) >= 3:
        for name, (low, high) in WIDTHS.items():
            inside = sorted(w for w in set(widths.values()) if low <= w <= high)
            below = sorted(w for w in set(widths.values()) if w < low)
            inside += below[-1:] if len(inside) < 2 else []
            labels = [label for label in codes.table if widths.get(label) in inside]
            mask = np.isin(codes.code, [codes.table.index(label) for label in labels])
            found.append(Region(name, _completed(problem, mask), ", ".join(sorted(labels, key=widths.__getitem__))))
    else:
        for place, name in enumerate(("low", "middle", "high")):
            found.append(Region(name, _third(problem, resource, place), f"{name} third by {resource}"))
    return found


def random_wholes(problem: Problem, areas: Sequence[Region], count: int, rng: np.random.Generator) -> list[Whole]:
    """``count`` allocations, equally many of each region, every group's choice drawn by itself; couplings ignored."""
    found: list[Whole] = []
    for place, area in enumerate(areas):
        some = [
            np.flatnonzero(area.rows[a:b]) + a for a, b in zip(problem.indptr[:-1], problem.indptr[1:], strict=True)
        ]
        own = count * (place + 1) // len(areas) - count * place // len(areas)
        found += [Whole(area.name, np.array([rng.choice(rows) for rows in some], np.int64)) for _ in range(own)]
    return found


def uniform_wholes(problem: Problem) -> list[Whole]:
    """The allocation of every label that each group has exactly once and may take."""
    codes = problem.label_codes
    found: list[Whole] = []
    for code, label in enumerate(codes.table):
        rows = np.flatnonzero((codes.code == code) & problem.free)
        if np.array_equal(problem.group_of[rows], np.arange(problem.group_count)):
            found.append(Whole("uniform", rows, label))
    return found


def optimal_wholes(
    problem: Problem, named: Sequence[Predictor], resource: str, parts: Parts, progress: Progress, seed: int
) -> list[Whole]:
    """The allocation that each predictor calls best, at `BUDGETS` budgets of the resource.

    What was chosen because its prediction is low is where predictions are too low: the case that matters in use.
    Budgets lie evenly on a logarithmic scale between the cheapest and the dearest allocation. Couplings hold.
    What was found is kept in ``parts``: a solver that ran into its time limit may find something else the next time.
    """
    budgets = budgets_between(problem, resource)
    identity = content_sha256(problem)
    found: list[Whole] = []
    for i, (predictor, budget) in enumerate((p, b) for p in named for b in budgets):
        progress("solved", i, len(named) * len(budgets))
        key = ("optimal", identity, predictor.name, resource, budget, seed)
        kept = parts.take(*key)
        if kept is None:
            kept = {"rows": torch.from_numpy(_solved(predictor.problem.with_budget(resource, max=budget), seed))}
            parts.keep(kept, *key)
        if len(kept["rows"]):
            found.append(Whole("optimal", kept["rows"].numpy(), f"{predictor.name} at {resource} {budget}"))
    progress("solved", 1, 1)
    return found


def _solved(problem: Problem, seed: int) -> IntArray:
    """The rows of the best allocation that was found [G]; none [0] if there is none."""
    solution = solve(problem, time_limit=SOLVE_SECONDS, seed=seed, threads=1)
    if solution.allocation is None:
        return np.zeros(0, np.int64)
    return np.asarray(problem.indptr[:-1] + solution.allocation.choice, np.int64)


def budgets_between(problem: Problem, resource: str) -> list[int | float]:
    """`BUDGETS` totals between those of the cheapest and the dearest allocation, offset included."""
    column = np.asarray(problem.cost(resource), np.float64)
    column = np.where(problem.free, column, np.nan)
    cheap, dear = (float(f.reduceat(column, problem.indptr[:-1]).sum()) for f in (np.fmin, np.fmax))
    offset = problem.resources[resource].offset
    if not 0 < cheap < dear or problem.resources[resource].aggregate != "sum":
        return []
    steps = cheap * (dear / cheap) ** (np.arange(1, BUDGETS + 1) / (BUDGETS + 1))
    return [int(offset + s) if problem.exact(resource) else float(offset + s) for s in steps.tolist()]


def main_resource(problem: Problem) -> str:
    """The resource of the first budget; else ``weight_bytes``; else the first."""
    named = [row.resource for row in problem.budgets if row.resource is not None]
    return named[0] if named else "weight_bytes" if "weight_bytes" in problem.costs else next(iter(problem.costs))


def _completed(problem: Problem, mask: BoolArray) -> BoolArray:
    """The mask within what may be taken; all of that in groups where nothing is left."""
    kept = mask & problem.free
    empty = ~np.logical_or.reduceat(kept, problem.indptr[:-1])
    return np.asarray(kept | (problem.free & empty[problem.group_of]), np.bool_)


def _third(problem: Problem, resource: str, place: int) -> BoolArray:
    """The low (0), middle (1) or high (2) third of each group's choices by cost, two at least."""
    column: FloatArray = np.asarray(problem.cost(resource), np.float64)
    mask = np.zeros(problem.choice_count, np.bool_)
    for a, b in zip(problem.indptr[:-1].tolist(), problem.indptr[1:].tolist(), strict=True):
        rows = np.arange(a, b)[problem.free[a:b]]
        rows = rows[np.argsort(column[rows], kind="stable")]
        size = min(len(rows), max(2, -(-len(rows) // 3)))
        start = (0, (len(rows) - size) // 2, len(rows) - size)[place]
        mask[rows[start : start + size]] = True
    return mask
