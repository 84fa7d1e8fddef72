"""Long columns in blocks that stay in the cache: no temporary is as long as a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from allocator.problem import Problem

BLOCK = 1 << 16  # choices looked at together
NARROW = 32  # up to so many choices a group, reductions go place by place


@dataclass(frozen=True)
class Span:
    """Consecutive groups and their choices: `groups` and `rows` are slices of [G] and [N] arrays."""

    groups: slice
    rows: slice


def spans(problem: Problem) -> Iterator[Span]:
    """The groups in blocks of about 2^16 choices, at least one group each."""
    indptr, count = problem.indptr, problem.group_count
    first = 0
    while first < count:
        last = int(np.searchsorted(indptr, indptr[first] + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield Span(slice(first, last), slice(int(indptr[first]), int(indptr[last])))
        first = last


def pieces(length: int) -> Iterator[slice]:
    """The places 0 to length − 1 in blocks."""
    for first in range(0, length, BLOCK):
        yield slice(first, min(first + BLOCK, length))


def per_group(problem: Problem, span: Span, reduction: np.ufunc, column: NDArray[Any]) -> NDArray[Any]:
    """A reduction (minimum, maximum) over each group of a span, of a column over the span's rows."""
    width = problem.width
    if width is None or width > NARROW:
        return np.asarray(reduction.reduceat(column, problem.indptr[span.groups] - span.rows.start))
    table = column.reshape(-1, width)
    found = table[:, 0].copy()
    for k in range(1, width):
        reduction(found, table[:, k], out=found)
    return found
