"""EXL2: a p-norm of the layers' relative errors, annealed for several p, then the rest of the budget spent."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from allocator.errors import UsageError
from allocator.methods.menus import Kinds
from allocator.methods.method import Fidelity, Method, Spec

if TYPE_CHECKING:
    from allocator.methods.choosing import Chosen, Setting
    from allocator.problem import Problem
    from allocator.statement import IntArray


@dataclass(frozen=True, kw_only=True)
class Exl2(Method):
    """Least Σ_l e_l^p for p between 1.5 and 3.5, e_l the relative error of a layer's outputs; the p of least max e_l.

    Attributes:
        powers: p to try, with + between.
    """

    name: ClassVar[str] = "exl2"
    paper: ClassVar[str] = "exllamav2, EXL2 (code, no paper)"
    fidelity: ClassVar[Fidelity] = "allocation rule only"
    leaves_out: ClassVar[str] = (
        "GPTQ, options of several parts per attention and MLP block, and the second, finer sweep of p; errors are "
        "those of single layers"
    )
    kinds: ClassVar[Kinds] = "bits"
    profilers: ClassVar[tuple[Spec, ...]] = (Spec("output_error"),)
    terms: ClassVar[dict[str, float]] = {"output_error_relative": 1.0}
    solver: ClassVar[Spec] = Spec("annealing")
    powers: str = "1.5+2+2.5+3+3.5"

    def allocate(self, setting: Setting) -> Chosen:
        """Anneal for each p, keep the least largest error, then fill."""
        from allocator.methods.choosing import given, solved

        try:
            powers = [float(part) for part in re.split("[+,]", self.powers)]
            if min(powers) < 1:
                raise ValueError
        except ValueError:
            raise UsageError(f"powers={self.powers!r} of exl2: write numbers from 1 up with + between") from None
        error = setting.problem.unary
        best: Chosen | None = None
        worst = np.inf
        for power in powers:
            problem = setting.problem.replace(loss=replace(setting.problem.loss, aggregate="pnorm", p=power))
            one = solved(replace(setting, problem=problem), self.solver)
            if one.solution.allocation is None:
                best = best or one
                continue
            largest = float(error[one.solution.allocation.rows()].max())
            if best is None or largest < worst:
                best, worst = one, largest
        assert best is not None, "at least one power"
        if best.solution.allocation is None:
            return best
        return given(setting, filled(setting.problem, best.solution.allocation.choice.astype(np.int64)))


def filled(problem: Problem, choice: IntArray) -> IntArray:
    """Groups by falling loss, again and again, each to its best choice that keeps every row, until none moves."""
    choice = choice.copy()
    unary = problem.unary
    moved = True
    while moved:
        moved = False
        for g in np.argsort(-unary[problem.indptr[:-1] + choice], kind="stable").tolist():
            own = np.arange(*problem.indptr[g : g + 2].tolist())
            for place in np.argsort(unary[own], kind="stable").tolist():
                if unary[own[place]] >= unary[own[choice[g]]]:
                    break
                other = choice.copy()
                other[g] = place
                if problem.free[own[place]] and problem.evaluate(other).feasible:
                    choice, moved = other, True
                    break
    return choice
