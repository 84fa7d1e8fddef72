"""The average curvature of a layer times the squared error of its weight: HAWQ-V2's sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from allocator.progress import Progress
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._score import Score
from profilers._traces import Method, Traces


@dataclass(frozen=True, kw_only=True)
class HessianTrace(Profiler):
    """``hessian_trace`` = ½ · (tr H_l / n_l) · ‖Δ‖² in nats per position, with the choice's real Δ.

    H_l = ∂² mean cross entropy / ∂W_l², n_l weights (Dong et al. 2020, HAWQ-V2, arXiv 1911.03852, whose Ω lacks the
    ½): E ½ ΔᵀHΔ for a Δ of that length in a random direction. Signed. It knows nothing of where in the layer Δ lies:
    respectable for rounding, poor for low rank. tr H_l / n_l, what HAWQ calls the average trace, is also given as
    the group stat ``average_trace``.

    Traces are estimated with random signs v in one layer at a time, E vᵀH_l v = tr H_l (Hutchinson 1990); layers of
    at most 1000 weights by Hutch++ (`profilers._hutchpp`). Target ``ce``. The standard error joins that over
    ``pieces`` of the data (`profilers._pieces`) and that over probes; on 256 images the former is 15 to 22 %, so that
    a ``tolerance`` under 0.1 buys little. It is that of the trace: how far Δ is from a random direction is not in it,
    nor that stopping by the spread of the probes themselves prefers, a little, rounds that came out large.

    Costs 0.5 to 0.85 FB per layer and probe: at 10 % some 20 probes, 10·L to 17·L FB. `GgnDiag`, for 3 FB, was
    measured to rank as well.

    Attributes:
        probes: at most so many products per layer, at least 6.
        tolerance: stop a layer when the probes' standard error is within this share of its trace; 0: take all probes.
        method: ``hutchinson``, ``hutch++``, or ``auto`` by size.
        seed: of the random signs.
        samples: use only the first so many rows of calibration data.
        pieces: at least so many, if there are as many samples.
    """

    name: ClassVar[str] = "hessian_trace"
    probes: int = 128
    tolerance: float = 0.1
    method: Method = "auto"
    seed: int = 0
    samples: int | None = None
    pieces: int = 8

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``hessian_trace`` and the stat ``average_trace``."""
        make_forms(plan, progress)
        traces = Traces(
            name=self.name, matrix="hessian", method=self.method, probes=self.probes, tolerance=self.tolerance,
            seed=self.seed, samples=self.samples, pieces=self.pieces,
        ).run(plan, progress)  # fmt: skip
        values, errors = [], []
        for target, trace in zip(plan.targets, traces, strict=True):
            halves = [0.0] * len(target.menu)
            for place, delta in target.changes():
                halves[place] = float(delta.double().square().sum()) / 2 / delta.numel()
            values.append([trace.value * half for half in halves])
            errors.append([trace.stderr * half for half in halves])
        score = Score(values, errors, unit="nat", target="ce", per=plan.workload.task.per)
        sizes = [target.unit.weight.numel() for target in plan.targets]
        told = {
            target.name: {"method": t.method, "products": t.products, "trace": t.value, "probing_stderr": t.probing}
            for target, t in zip(plan.targets, traces, strict=True)
        }
        return Findings(
            scores={"hessian_trace": score},
            stats={"average_trace": [trace.value / size for trace, size in zip(traces, sizes, strict=True)]},
            notes={"traces": told},
        )
