"""The baseline that any allocation has to beat: one label for all groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import ALL
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """The best feasible allocation in which every group with a choice left takes the same label.

    Groups with a single choice (pinned, or nothing else allowed) keep it. Where a group has several choices
    of the label, the one of least unary loss is taken.
    """

    name: ClassVar[str] = "uniform"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Try every label that all groups have."""
        codes = problem.label_codes.code
        open_groups = np.flatnonzero(problem.sizes > 1)
        order = np.lexsort((problem.unary, codes, problem.group_of))
        pair = np.stack([problem.group_of[order], codes[order]])
        first = order[np.concatenate([[True], (np.diff(pair) != 0).any(axis=0)])]
        counts = np.bincount(codes[first[problem.sizes[problem.group_of[first]] > 1]])
        only = problem.indptr[:-1]
        best: tuple[float, float] | None = None
        choice = None
        tried = np.flatnonzero(counts == len(open_groups)) if len(open_groups) else np.array([-1])
        for label in tried.tolist():
            rows = only.copy()
            taken = first[(codes[first] == label) & (problem.sizes[problem.group_of[first]] > 1)]
            rows[problem.group_of[taken]] = taken
            outcome = problem.evaluate(rows - only)
            if outcome.feasible and (best is None or (outcome.objective, outcome.tie) < best):
                best, choice = (outcome.objective, outcome.tie), rows - only
                if limits.report is not None:
                    limits.report(choice)
        return Answer(choice=choice, statistics={"labels_tried": len(tried)})
