"""One choice of a method under one budget: what it is given, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allocator import registry
from allocator.methods.method import Spec
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.solution import Solution
from allocator.statement import IntArray

if TYPE_CHECKING:
    from allocator.methods.certifying import Certified
    from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a method chooses in.

    Attributes:
        workload: whose calibration data may be looked at; its evaluation data only judge what comes out.
        problem: stated and budgeted.
        seed: of whatever is random.
        jobs: processes for measurements.
        folder: for finished measurements; None keeps nothing.
        progress: called as ``progress(stage, done, total)``.
    """

    workload: Workload
    problem: Problem
    seed: int = 0
    jobs: int | None = None
    folder: Path | None = None
    progress: Progress = field(default=silent)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a method came to.

    Attributes:
        solution: checked by the core; without an allocation where the method found none.
        problem: on which it was chosen.
        predicted: loss that the method expects, in the unit of its own loss; None without an allocation.
        target: what the prediction stands for, kl, ce, metric or proxy; "" leaves it to the problem's loss.
        said: what the method has to say of it, in words.
        certified: of a method that claims to be lossless.
    """

    solution: Solution
    problem: Problem
    predicted: float | None
    target: str = ""
    said: str = ""
    certified: Certified | None = None

    @property
    def meaning(self) -> str:
        """Target of the prediction."""
        targets = {str(self.problem.score_specs[term].get("target", "proxy")) for term in self.problem.loss.terms}
        return self.target or (targets.pop() if len(targets) == 1 else "proxy")


def solved(setting: Setting, solver: Spec, **options: Any) -> Chosen:
    """The allocation that the named solver gives; ``auto`` leaves it to the core."""
    every = {**solver.options, **options}
    made = "auto" if solver.name == "auto" else registry.make("solvers", solver.name, every)
    solution = solve(setting.problem, made, seed=setting.seed, threads=1)
    return Chosen(solution=solution, problem=setting.problem, predicted=solution.loss)


def given(setting: Setting, choice: IntArray) -> Chosen:
    """An allocation [G] that a method has made itself, checked by the core."""
    from allocator.refining.refinement import Given

    solution = solve(setting.problem, Given(passes=0, candidate="the method's own"), start=choice.tolist())
    return Chosen(solution=solution, problem=setting.problem, predicted=solution.loss)
