"""What methods have in common that call a compression lossless when an expansion of the loss says that it falls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from allocator.methods.method import Method, Spec
from allocator.statement import Loss

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.problem import Problem
    from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Lossless(Method):
    """Chooses by a signed expansion of the loss, and certifies the result only if a joint measurement backs it.

    Three quarters of the calibration data are profiled. On the last quarter, which the profile has not seen, the loss
    of the whole allocation is measured once: its distance from the prediction is the joint remainder. Remainders of
    single choices do not bound it.

    Attributes:
        samples: on which each choice's own remainder is measured.
    """

    expansion: ClassVar[str]
    samples: int = 64

    def statistics(self) -> tuple[Spec, ...]:
        """The expansion with the measured gap of every choice."""
        return (Spec("remainder", {"of": self.expansion, "samples": self.samples}),)

    def data(self, workload: Workload) -> Workload:
        """Three quarters of the calibration data to profile, one to certify on."""
        from allocator.splitting import split

        return split(workload)

    def allocate(self, setting: Setting) -> Chosen:
        """Solve, then measure the whole allocation once."""
        from allocator.methods.certifying import certify

        chosen = super().allocate(setting)
        if chosen.solution.allocation is None:
            return chosen
        rows = chosen.solution.allocation.rows()
        predicted = float(setting.problem.scores[self.expansion][rows].sum())
        found = certify(self.data(setting.workload), setting.problem, chosen.solution, predicted)
        return replace(chosen, predicted=predicted, said=found.words, certified=found)


def upper(problem: Problem, expansion: str) -> Problem:
    """With the loss Σ (score + remainder) of the expansion: what a choice may cost by itself, if its gap adds."""
    name = f"{expansion}_upper"
    column = problem.scores[expansion] + problem.remainder[expansion]
    spec = {**problem.score_specs[expansion], "profiler": f"{expansion} + remainder"}
    errors = {name: problem.stderr[expansion]} if expansion in problem.stderr else {}
    return problem.with_scores({name: column}, errors, {name: spec}).replace(loss=Loss({name: 1.0}))
