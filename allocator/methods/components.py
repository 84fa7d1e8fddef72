"""Singular components kept by what leaving them out is predicted to do, not by their size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allocator import registry
from allocator.profiling import profile
from allocator.progress import Progress
from allocator.space import Rule, Space
from allocator.tasks.guard import untouched

if TYPE_CHECKING:
    from allocator.statement import FloatArray
    from allocator.workload import Workload

HALVINGS = 60
MARGIN = 0.98
"""Of γ²: what is left of it is for the rounding of the factors."""


def with_picked(workload: Workload, space: Space, gamma: float, folder: Path | None, progress: Progress) -> Space:
    """The space with, after each rank of each layer, the same rank with components picked by slope.

    Measures `ComponentSlopes` on the calibration data. A rank for which the picked components are the largest ones, or
    for which no components of that number are within γ, is offered once. Layers that are pinned, skipped or whose
    weight cannot be factored stay as they are.

    Args:
        workload: what the method profiles.
        space: with ranks; the rule that covers a layer is unrolled for it.
        gamma: largest relative error ‖δ‖_F/‖W‖_F.
        folder: for finished measurements.
        progress: as in `profile`.
    """
    from profilers._fast_path import opened
    from profilers._plan import plan

    problem = profile(
        workload, space, registry.make("profilers", "component_slopes", {"listed": True}), progress, folder, 1
    )
    meta = problem.notes.meta or {}
    told = meta["profilers"]["component_slopes"]
    with untouched(workload.model), opened(workload):
        targets = plan(workload, space).targets
    rules: list[Rule] = []
    for target in targets:
        rule = space.rule_for(target.unit.modules, target.layer.kind)
        top = min(target.layer.rows, target.layer.columns)
        if rule is None or isinstance(rule.choices, str) or target.layer.groups != 1:
            continue
        slope, sigma = (np.array(told[kind][target.name]) for kind in ("slopes", "sigma"))
        choices: list[Mapping[str, Any]] = []
        for choice in rule.choices:
            choices.append(choice)
            rank = _rank(choice, top)
            kept = None if rank is None else picked(slope, sigma, rank, gamma)
            if kept is not None:
                choices.append({**choice, "components": kept})
        rules.append(Rule(choices=tuple(choices), modules="re:" + re.escape(target.name)))
    return replace(space, rules=(*rules, *space.rules))


def picked(slope: FloatArray, sigma: FloatArray, rank: int, gamma: float) -> list[int] | None:
    """The components [rank] to keep, rising: those left out have the least Σ slope with Σ σ² ≤ γ² of the whole.

    By a price λ on σ²: left out are the components of least slope + λσ², λ = 0 if that keeps the limit, else the least
    price that does (bisection); at worst those of least σ. None where even these are beyond.
    """
    square = sigma**2 / max(float((sigma**2).sum()), 1e-300)
    out = len(sigma) - rank
    if out < 1:
        return None

    def left_out(price: float) -> Any:
        worth = square if np.isinf(price) else slope + price * square
        return np.lexsort((square, worth))[:out]

    def within(places: Any) -> bool:
        return float(square[places].sum()) <= MARGIN * gamma**2

    if not within(left_out(np.inf)):
        return None
    best = left_out(0.0)
    if not within(best):
        best, low, high = left_out(np.inf), 0.0, 1e-6 * max(float(np.abs(slope).max()), 1e-300)
        while not within(left_out(high)) and high < 1e30:
            low, high = high, 4 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            places = left_out(middle)
            if within(places):
                best, high = places, middle
            else:
                low = middle
    return sorted(set(range(len(sigma))) - set(best.tolist()))


def _rank(choice: Mapping[str, Any], top: int) -> int | None:
    """Of a low-rank choice as the space resolves it; None for any other, and for one that names its components."""
    if choice.get("kind") != "low_rank" or "components" in choice:
        return None
    if "fraction" in choice:
        return max(1, round(float(choice["fraction"]) * top))
    rank = int(choice["rank"])
    return rank if rank <= top else None
