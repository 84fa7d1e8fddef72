"""Hypothesis strategies: problems in the row form and as `Problem`, and allocations of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from allocator.problem import Problem
from allocator.testing.random_problems import PARTS, random_rows


def problem_rows(parts: Collection[str] = PARTS, **limits: int) -> st.SearchStrategy[dict[str, Any]]:
    """Problems in the row form; `parts` and `limits` as for `random_rows`. They shrink."""
    return st.randoms(use_true_random=False).map(lambda rng: random_rows(rng, parts, **limits))


def problems(parts: Collection[str] = PARTS, **limits: int) -> st.SearchStrategy[Problem]:
    """Problems; `parts` and `limits` as for `random_rows`."""
    return problem_rows(parts, **limits).map(Problem.from_rows)


def allocations(problem: Problem) -> st.SearchStrategy[NDArray[np.int64]]:
    """Allocations of a problem, feasible or not: indices [G]."""
    places = st.tuples(*(st.integers(0, size - 1) for size in problem.sizes.tolist()))
    return places.map(lambda choice: np.array(choice, np.int64))
