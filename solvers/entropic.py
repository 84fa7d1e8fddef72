"""Entropy-regularised sharing of a global sparsity: each group loses a share by the softmax of its unimportance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from solvers._axis import Axis
from solvers._closing import closed
from solvers._level import shares
from solvers._stats import stat


@dataclass(frozen=True, kw_only=True)
class Entropic:
    """Takes from each group a part of its cost in proportion to exp(−importance/temperature), until the budget holds.

    max Σ s_g (1 − φ_g) + ε H(φ) for a given mean of the sparsities φ: φ_g = κ · softmax(−s/ε)_g, with κ such that
    the sparsities, weighted by each group's largest useful cost w_g, meet the budget: Σ w_g (1 − φ_g) = budget.
    For equal w_g this is the allocation of MoDeGPT (Lin et al., ICLR 2025), κ being the number of groups times the
    mean. Sparsities stop at `most`, and the rest is shared by the others in proportion, as its code does. The cost
    w_g (1 − φ_g) is rounded to the nearest among the choices that no other of the group beats, then repaired. The
    scores are not looked at otherwise.

    Stat, needed: `importance` of each group, s_g; for instance the block influence E[1 − cos(input, output)].

    temperature: ε in units of the importance; large values come close to equal sparsity.
    most: largest sparsity of a group, from 0 to 1.
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    temperature: float = 0.15
    most: float = 0.8
    polish: bool = False

    name: ClassVar[str] = "entropic"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ("importance",)
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature}: give a number above 0")
        if not 0 < self.most <= 1:
            raise ValueError(f"most={self.most}: give a sparsity above 0 and at most 1")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Softmax, one factor for all, round, repair."""
        axis = Axis.of(linearise(problem))
        if axis is None:
            return Answer()
        importance = stat(problem, self.name, "importance", "how much the group matters, such as its block influence")
        weight = np.exp((importance.min() - importance) / self.temperature)
        range_ = axis.hi - axis.lo
        size = np.maximum(axis.hi, range_)  # the cost itself, unless costs are negative
        largest = np.minimum(self.most * size, range_)
        removed = shares(np.zeros(len(size)), size * weight, np.zeros(len(size)), largest, axis.hi.sum() - axis.room)
        return closed(axis, axis.nearest(axis.hi - removed), limits, polish=self.polish)
