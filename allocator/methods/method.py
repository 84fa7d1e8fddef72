"""What a named method is: its statistics, its loss, its solver, and how much of the paper it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from allocator.errors import UsageError
from allocator.methods.menus import Kinds, menu_of
from allocator.progress import Progress
from allocator.statement import Loss

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.methods.forecasting import Extent
    from allocator.problem import Problem
    from allocator.space import Space
    from allocator.workload import Workload

Fidelity = Literal["own", "paper", "allocation rule only", "derived"]
"""``paper``: statistic and rule are the paper's, or its published code's; ``allocation rule only``: the rule is, fed
with what there is here; ``derived``: worked out from an abstract or a sibling paper; ``own``: of this package."""


@dataclass(frozen=True)
class Spec:
    """A plug-in by its registry name, with options; written ``name[option=value]``."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}[{inside}]" if inside else self.name


class Method:
    """Base of the recipes: a frozen keyword-only dataclass whose fields are its options.

    Most recipes are these names alone. One whose rule is more than "minimise this loss with that solver" overrides
    `stated` or `allocate`.

    Attributes:
        name: registry name.
        paper: whose idea, with its arXiv number.
        fidelity: how much of it is here.
        leaves_out: what of the paper is not here, in a sentence.
        kinds: choices that it can take; others are left out of the space.
        profilers: statistics to measure, by registry name.
        terms: the loss over their scores.
        interactions: whether interactions of these scores count.
        couple: layers to be found on the network that must take one format.
        solver: by registry name.
        needs_budget: False for a method that minimises a resource itself.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    fidelity: ClassVar[Fidelity]
    leaves_out: ClassVar[str] = ""
    kinds: ClassVar[Kinds] = "any"
    profilers: ClassVar[tuple[Spec, ...]]
    terms: ClassVar[Mapping[str, float]]
    interactions: ClassVar[bool] = False
    couple: ClassVar[tuple[str, ...]] = ()
    solver: ClassVar[Spec] = Spec("exact")
    needs_budget: ClassVar[bool] = True

    def statistics(self) -> tuple[Spec, ...]:
        """The profilers, with what the recipe's own options say of them."""
        return self.profilers

    def space(self, space: Space) -> Space:
        """The choices of the space that the method can take."""
        return menu_of(space, self.kinds)

    def measured_space(self, workload: Workload, space: Space, folder: Path | None, progress: Progress) -> Space:
        """The space with choices that only a measurement on the method's `data` can name; as it is for most methods."""
        return space

    def data(self, workload: Workload) -> Workload:
        """The workload whose calibration data the profilers see."""
        return workload

    def forecast(self, extent: Extent) -> float:
        """Forward and backward passes over the calibration data that the method will take, about.

        Known before anything is measured, so that nobody begins what will not end; see `allocator.methods.forecasting`.
        """
        from allocator.methods.forecasting import passes_of

        return sum(passes_of(one, extent) for one in self.statistics())

    def stated(self, problem: Problem) -> Problem:
        """The profile with the method's loss; other scores stay as columns.

        Raises:
            UsageError: a score of the loss that the profile lacks.
        """
        missing = [score for score in self.terms if score not in problem.scores]
        if missing:
            raise UsageError(
                f"method {self.name} needs the score {missing[0]!r}, and the profile has {', '.join(problem.scores)}: "
                f"profile with {', '.join(map(str, self.statistics()))}"
            )
        kept = problem.interactions if self.interactions else ()
        return problem.replace(loss=Loss(dict(self.terms)), interactions=kept)

    def allocate(self, setting: Setting) -> Chosen:
        """Choose: the named solver on the stated problem."""
        from allocator.methods.choosing import solved

        return solved(setting, self.solver)
