"""The bar that every solver passes, ours and yours: subclass it, give it one fixture, run pytest.

class TestMine(SolverConformance):
    @pytest.fixture
    def solver(self):
        return Mine()
"""

from __future__ import annotations

from allocator.testing.conformance.answers import Answers
from allocator.testing.conformance.bench import ExemptionWarning
from allocator.testing.conformance.declarations import Declarations
from allocator.testing.conformance.guises import Guises
from allocator.testing.conformance.limits import LimitsKept
from allocator.testing.conformance.quality import Quality
from allocator.testing.conformance.refusals import Refusals
from allocator.testing.conformance.traces import Traces

__all__ = ["ExemptionWarning", "SolverConformance"]


class SolverConformance(Declarations, Answers, Quality, Guises, LimitsKept, Refusals, Traces):
    """Everything that a solver has to keep. See `allocator.testing.conformance.bench.Bench` for what may be set.

    The suite draws problems that the solver takes by its own `features` and `stats`, compares with a reference that
    looks at all allocations, and holds it to its own `exactness`. One test, marked `serial`, measures time: let it
    run alone.
    """
