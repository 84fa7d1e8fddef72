"""What a bound and a local search together are worth as an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from allocator.evaluation import Outcome
from allocator.protocols import Limits
from allocator.solution import Answer


def bounded(best: Outcome | None, limits: Limits, bound: float, slip: float, statistics: Mapping[str, Any]) -> Answer:
    """The best allocation of a search under a bound: "optimal" where they meet within `slip`.

    bound: on the objective, −∞ for none. slip: what rounding may have taken off it.
    """
    limit = "time" if limits.left <= 0 else None
    known = bound if math.isfinite(bound) else None
    if best is None:
        return Answer(claimed_bound=known, limit=limit, statistics=statistics)
    closed = best.objective <= bound + slip
    return Answer(
        choice=best.rows - best.problem.indptr[:-1],
        claim="optimal" if closed else None,
        claimed_bound=None if known is None else min(known, best.objective),
        limit=None if closed else limit,
        statistics=statistics,
    )
