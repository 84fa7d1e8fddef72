"""SVD-LLM V2: layers of one type share out a compression ratio by the reciprocal logarithm of their truncation loss."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from allocator.errors import UsageError
from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.problem import Problem
    from allocator.statement import FloatArray, IntArray
    from allocator.views import Choice

STEPS = 256
"""Target ratios that are tried between 0 and 1."""
MOST = 16
"""Largest target ratio: no layer's share is less than 1/(1 + ln 1/LEAST) of another's, so that all are then at 1."""
LEAST = 1e-6
"""Of a type's largest loss: what smaller losses count as."""


@dataclass(frozen=True, kw_only=True)
class SvdLlmV2(Method):
    """Of layers of one type and shape each gives up r_l = |G| R (1/ln L_l) / Σ_G (1/ln L) of its parameters.

    R is the target ratio, L_l = ‖X Wᵀ − X Ŵᵀ‖_F over the calibration data with the rank that leaves 1 − R of the
    parameters; each layer takes the largest rank that leaves at most 1 − r_l. A larger loss gives up less. R is the
    least of 0, 1/256, 2/256, … that keeps the budget.

    1/ln L means nothing for L ≤ 1, and just above 1 too much: with losses of 1.01 and 1.1 the first layer would give up
    ten times as much as the second. Where all losses of a type exceed e, as those of the paper's models do, the rule is
    the published one; otherwise they are taken in the unit in which the smallest is e.
    """

    name: ClassVar[str] = "svd_llm_v2"
    paper: ClassVar[str] = "SVD-LLM V2, Wang et al. 2025, arXiv 2503.12340"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "truncation of the whitened weight, of which only the loss would be less: ranks truncate the weight itself; "
        "losses of a type below e are scaled until the smallest is e, since 1/log of less is no share; no public code "
        "to compare with"
    )
    kinds: ClassVar[Kinds] = "ranks"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("output_error"),)
    terms: ClassVar[dict[str, float]] = {"output_error_sum": 1.0}

    def allocate(self, setting: Setting) -> Chosen:
        """The least target ratio whose ranks keep the budget."""
        from allocator.methods.choosing import given, solved

        problem = setting.problem
        menu = Ranks(problem)
        for step in range(MOST * STEPS + 1):
            choice = menu.at(step / STEPS)
            if problem.evaluate(choice).feasible:
                chosen = given(setting, choice)
                return replace(chosen, said=f"target ratio {step / STEPS:.3g} of the parameters")
        otherwise = solved(setting, self.solver)
        if otherwise.solution.allocation is None:
            return otherwise  # with the reasons why nothing fits
        raise UsageError(
            "svd_llm_v2 finds no target ratio that keeps all rows of the problem, though allocations are known that "
            "do: its rule knows of no lower limits and no couplings"
        )


def removed(losses: Sequence[float], ratio: float) -> FloatArray:
    """r [G] of layers of one type: in proportion to 1/ln L with mean ``ratio``; not cut at 1."""
    most = max(losses)
    if not most > 0:
        return np.full(len(losses), ratio)
    below = np.log(np.maximum(np.asarray(losses, np.float64) / most, LEAST))  # ln L − ln max L, within −13.8 and 0
    smallest = max(1.0, math.log(most) + float(below.min()))  # ln of the smallest, in the unit in which it is e or more
    share = 1 / (smallest + below - below.min())
    return np.asarray(len(losses) * ratio * share / share.sum())


class Ranks:
    """The ranks of every layer with the parameters that they leave, and the layers by type."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        groups = list(problem.groups)
        samples = ((problem.notes.provenance or {}).get("calibration") or {}).get("n", 1)
        self.rows: list[IntArray] = []
        self.left: list[FloatArray] = []
        self.loss: list[FloatArray] = []
        types: dict[Any, list[int]] = {}
        for g, group in enumerate(groups):
            macs = max(float(choice.cost.get("macs", 0)) for choice in group.choices)
            own = [(choice.row, left) for choice in group.choices if (left := _left(choice, macs, group.weights))]
            own = sorted((pair for pair in own if problem.free[pair[0]]), key=lambda pair: pair[1])
            rows = np.array([row for row, _ in own], np.int64)
            self.rows.append(rows)
            self.left.append(np.array([left for _, left in own]))
            positions = macs / (group.weights or 1) or 1.0  # lookups of an embedding are not known, and not needed
            self.loss.append(np.sqrt(problem.scores["output_error_sum"][rows] * positions * samples))
            if len(rows):
                types.setdefault((_role(group.name), group.weights, tuple(self.left[-1])), []).append(g)
        self.types = list(types.values())
        self.whole = _dearest(problem)

    def at(self, ratio: float) -> IntArray:
        """The choices [G] at a target ratio; a layer that gives up nothing, or has no rank to offer, is kept."""
        choice = self.whole.copy()
        for members in self.types:
            losses = [float(self.loss[g][self._place(g, 1 - ratio)]) for g in members]
            for g, share in zip(members, removed(losses, ratio).tolist(), strict=True):
                if share > 0:
                    choice[g] = self.rows[g][self._place(g, 1 - share)] - self.problem.indptr[g]
        return choice

    def _place(self, g: int, left: float) -> int:
        """The largest rank that leaves at most so much, or the smallest there is."""
        return max(0, int(np.searchsorted(self.left[g], left * (1 + 1e-12), side="right")) - 1)


def _left(choice: Choice, macs: float, weights: int | None) -> float:
    """Share of the parameters that a rank leaves; 0 for what is not a rank.

    Multiply-accumulates are in proportion to parameters; an embedding has none, and has its bytes over those of the
    whole weight stored as its left factor is.
    """
    action = choice.action
    if not action or action.get("kind") != "low_rank":
        return 0.0
    if macs:
        return float(choice.cost["macs"]) / macs
    factor = action["left"]
    bits = factor.get("bits") or (32 if factor.get("dtype", "float32") == "float32" else 16)
    return 8 * float(choice.cost["weight_bytes"]) / (float(bits) * (weights or 1))


def _role(name: str) -> str:
    """What the layer is called in its block: the last part of its name that is not a number."""
    return next((part for part in reversed(name.split(".")) if not re.fullmatch(r"\d+", part)), "")


def _dearest(problem: Problem) -> IntArray:
    """The dearest allowed choice of each group [G], the whole weight as a rule."""
    found = []
    cost = np.where(problem.free, problem.costs["weight_bytes"], -np.inf)
    for start, stop in zip(problem.indptr[:-1].tolist(), problem.indptr[1:].tolist(), strict=True):
        found.append(int(np.argmax(cost[start:stop])))
    return np.array(found, np.int64)
