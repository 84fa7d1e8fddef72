"""How far a choice moves the weights, whatever they are for: no data, no passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from allocator.progress import Progress
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._score import Score


@dataclass(frozen=True, kw_only=True)
class WeightError(Profiler):
    """Squared distance between a weight W and its approximation Ŵ, in three scalings, dimensionless and ≥ 0.

    - ``weight_error`` = ‖Ŵ − W‖² / n, the mean over the layer's n weights;
    - ``weight_error_sum`` = ‖Ŵ − W‖²;
    - ``weight_error_relative`` = ‖Ŵ − W‖² / ‖W‖² (0 when W is 0).

    They only rank (target ``proxy``): none knows what the layer does to the output. The mean follows KL fairly well
    over all choices; the sum and the relative error rank the layers *within* one bit-width about as badly as chance,
    and mostly lead back to the uniform allocation.
    """

    name: ClassVar[str] = "weight_error"

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """One score per scaling; exact, so without standard errors."""
        make_forms(plan, progress)
        sums: list[list[float]] = []
        means: list[list[float]] = []
        shares: list[list[float]] = []
        for done, target in enumerate(plan.targets, 1):
            row = [0.0] * len(target.menu)
            for place, delta in target.changes():
                row[place] = _energy(delta)
            energy = _energy(target.unit.weight.detach())
            sums.append(row)
            means.append([value / target.layer.weights for value in row])
            shares.append([value / energy if energy else 0.0 for value in row])
            progress("weight_error", done, len(plan.targets))
        columns = {"weight_error": means, "weight_error_sum": sums, "weight_error_relative": shares}
        scores = {name: Score(value, None, unit="1", target="proxy") for name, value in columns.items()}
        return Findings(scores=scores)


def _energy(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
