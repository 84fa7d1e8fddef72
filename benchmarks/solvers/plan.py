"""Which backend is tried on which case, and which are compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from allocator.comparison import solver_from_text, split_spec
from allocator.errors import AllocatorError, UsageError
from benchmarks.solvers.case import Case
from benchmarks.solvers.goals import GOALS, SUBJECT
from benchmarks.solvers.records import MIPS

SOLVERS = (
    "exact,exact@numpy,lagrangian,greedy,scipy_milp,ortools_cpsat,ortools_mip[engine=scip],ortools_mip[engine=highs],"
    "frontier"
)
FRONTIER = "frontier"
MIP_REACH = 2_000
MIP_MEMORY = 200_000


@dataclass(frozen=True)
class Entrant:
    """A backend under one name: "exact", "exact@numpy" (the engine without C), "ortools_mip[engine=highs]"."""

    text: str

    @property
    def solver(self) -> str:
        """What `allocator.solve` is given."""
        return self.text.partition("@")[0]

    @property
    def backend(self) -> str:
        """Registry name."""
        return split_spec(self.solver)[0]

    @property
    def mip(self) -> bool:
        """Whether a MIP library does the work."""
        return self.backend in MIPS

    @property
    def environment(self) -> dict[str, str]:
        """What the measuring process is told beside its job."""
        engine = self.text.partition("@")[2]
        return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ALLOCATOR_ENGINE": engine}


def entrants(text: str) -> tuple[list[Entrant], list[str]]:
    """Those that are here, and a line for each that is not.

    Raises:
        UsageError: nothing is left.
    """
    found, missing = [], []
    for name in re.findall(r"[^,\[]+(?:\[[^\]]*\])?(?:@\w+)?", text):
        entrant = Entrant(name.strip())
        try:
            if entrant.text.partition("@")[2] not in ("", "numpy"):
                raise UsageError("the engine after @ can only be numpy")
            if entrant.text != FRONTIER:
                solver_from_text(entrant.solver)
            found.append(entrant)
        except AllocatorError as error:
            missing.append(f"{entrant.text} is left out: {error}")
    if not found:
        raise UsageError("; ".join(missing) or "no solvers are named")
    return found, missing


def why_not(case: Case, entrant: Entrant) -> str | None:
    """The reason not to try at all, or None."""
    if entrant.text == FRONTIER:
        return None if case.name.startswith("slices1m") else "the frontier is measured on the largest case only"
    if entrant.mip and case.groups > MIP_MEMORY:
        return f"memory: a model of {case.groups} groups does not fit beside its library's copies of it"
    return None


def asked_by_goals(case: Case, entrant: Entrant) -> bool:
    """Whether a goal needs this backend on this case: MIPs only where a ratio is asked for."""
    for goal in GOALS:
        if not fnmatchcase(case.name, goal.cases):
            continue
        if entrant.text == FRONTIER:
            wanted = goal.quantity == "frontier"
        elif entrant.mip:
            wanted = goal.ratio is not None
        else:
            wanted = entrant.text == (f"{SUBJECT}@{goal.engine}" if goal.engine else SUBJECT)
        if wanted:
            return True
    return False


def rounds(case: Case, entrant: Entrant, wanted: int) -> int:
    """Fresh processes per figure: one for what is only there to be seen failing."""
    return 1 if entrant.mip else wanted


def order(cases: Sequence[Case], chosen: Sequence[Entrant]) -> list[tuple[Case, Entrant]]:
    """Case by case, so that figures that are compared are measured close together."""
    return [(c, e) for c in cases for e in chosen if not (e.text == FRONTIER and why_not(c, e))]
