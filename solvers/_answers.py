"""What a bound and a local search together are worth as an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from allocator.interaction_search import InteractionSearch
from allocator.solution import Answer


def bounded(search: InteractionSearch, bound: float, slip: float, statistics: Mapping[str, Any]) -> Answer:
    """The best allocation of the search under a bound: "optimal" where they meet within `slip`.

    bound: on the objective, −∞ for none. slip: what rounding may have taken off it.
    """
    limit = "time" if search.limits.left <= 0 else None
    known = bound if math.isfinite(bound) else None
    if search.best is None:
        return Answer(claimed_bound=known, limit=limit, statistics=statistics)
    closed = search.best.objective <= bound + slip
    return Answer(
        choice=search.choice,
        claim="optimal" if closed else None,
        claimed_bound=None if known is None else min(known, search.best.objective),
        limit=None if closed else limit,
        statistics=statistics,
    )
