"""The default of this package: Gauss–Newton curvature with interactions, then measurement of what matters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.methods.forecasting import Extent


@dataclass(frozen=True, kw_only=True)
class House(Method):
    """½ ΔᵀGΔ with interactions, solved; the choices around the solution measured, solved again, validated.

    See `allocator.refine`: never worse than the best uniform allocation on held-in validation data.

    Attributes:
        passes: forward and backward passes over the calibration data that measuring may take, about.
    """

    name: ClassVar[str] = "house"
    paper: ClassVar[str] = "this package; curvature of Martens 2020 (arXiv 1412.1193)"
    fidelity: ClassVar[Fidelity] = "own"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("ggn"),)
    terms: ClassVar[dict[str, float]] = {"ggn": 1.0}
    interactions: ClassVar[bool] = True
    solver: ClassVar[Spec] = Spec("auto")
    passes: float = 10.0

    def forecast(self, extent: Extent) -> float:
        """The curvature, and what measuring may take."""
        return super().forecast(extent) + self.passes

    def allocate(self, setting: Setting) -> Chosen:
        """Refine; the prediction is that of the logit sum."""
        from allocator.methods.choosing import Chosen, solved
        from allocator.refining.refinement import refine

        alone = replace(setting, problem=setting.problem.replace(interactions=()))
        beginning = solved(alone, Spec("auto"))
        if beginning.solution.allocation is None:
            return beginning  # with the reasons why nothing fits
        found = refine(
            setting.workload, setting.problem, passes=self.passes, seed=setting.seed, jobs=setting.jobs,
            resume=setting.folder, progress=setting.progress,
        )  # fmt: skip
        return Chosen(solution=found.solution, problem=found.problem, predicted=found.predicted[0], said=found.reason)
