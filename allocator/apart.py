"""A problem whose choices are of several kinds, as one problem for each kind: what its search may start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from allocator.kinds import KINDS
from allocator.problem import Problem

MENU_OF: Mapping[str, str] = {
    str(choice["kind"]): name for name, menu in KINDS.items() for choice in menu if choice["kind"] != "corrected"
}
"""The menu of `KINDS` in which a kind of action stands."""


def menu_of(action: Mapping[str, Any]) -> str | None:
    """The name in `KINDS` of the menu that an action is of; None where it is of none, as ``keep``."""
    if action.get("kind") == "corrected":
        return menu_of(action["action"])
    return MENU_OF.get(str(action.get("kind")))


def apart(problem: Problem) -> Mapping[str, Problem]:
    """By kind, the problem with the choices of that kind alone, and in each group the one of least loss.

    That one stands in for a layer which the kind does not suit, as 8 bits do in every menu. A solution of any of them
    is one of the whole problem. Empty where there are fewer than two kinds, or no actions.
    """
    if problem.action_code is None:
        return {}
    kinds = np.array([*map(menu_of, problem.action_table), None], object)  # −1, no action, is of no kind
    each = kinds[problem.action_code]
    names = sorted({name for name in each[problem.free] if name is not None})
    if len(names) < 2:
        return {}
    value = np.where(problem.free, problem.unary, np.inf)
    least = value == np.minimum.reduceat(value, problem.indptr[:-1])[problem.group_of]
    return {name: problem.replace(allowed=problem.free & ((each == name) | least)) for name in names}
