"""run(): one named method from the network to the measured result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from allocator import registry
from allocator.applier.checkpoint import compress
from allocator.applying import applied, layer_statistics
from allocator.budgets import apply_budgets
from allocator.comparison import split_spec
from allocator.errors import UsageError
from allocator.formats.problems import save_problem
from allocator.methods.choosing import Chosen, Setting
from allocator.methods.judging import Interval, Judged, compared, interval
from allocator.methods.metering import Meter, one_pass
from allocator.methods.method import Method
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.progress import Progress, silent
from allocator.space import Space
from allocator.statement import Budget, Number
from allocator.workload import Workload

Budgets = Mapping[str, Number | str] | Sequence[str] | str | Number | None
METRICS = ("kl", "loss", "accuracy")
PLAIN = "weight_error"
"""The profiler that costs nothing, for a problem that only states costs and uniform allocations."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run of a method came to.

    Attributes:
        method: with its options.
        chosen: allocation, problem and prediction.
        judged: the compressed network on the evaluation data, with the float one beside it; None if nothing was found.
        uniform: the best uniform allocation within the same budget, judged; None where none fits.
        uniform_label: its label.
        used: what both use of each budgeted resource, the chosen one first.
        passes: forward and backward passes over the calibration data that its CPU time amounts to.
        seconds: on the clock, for profiling and choosing.
        checkpoint_bytes: on disk, but for those in which the file describes itself; None if none was written.
    """

    method: Method
    chosen: Chosen
    judged: Judged | None
    uniform: Judged | None = field(repr=False, default=None)
    uniform_label: str | None = None
    used: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    passes: float
    seconds: float
    checkpoint_bytes: int | None = None

    def against_uniform(self, metric: str) -> Interval | None:
        """Metric less that of uniform, paired; None where one of them is missing."""
        if self.judged is None or self.uniform is None or metric not in self.judged.sums:
            return None
        return interval(self.judged, self.uniform, metric)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        solution, certified = self.chosen.solution, self.chosen.certified
        base = None if self.judged is None else self.judged.original
        metrics = {
            metric: {
                "compressed": _measured(self.judged, metric),
                "float": _measured(base, metric),
                "uniform": _measured(self.uniform, metric),
                "less_uniform": None if (found := self.against_uniform(metric)) is None else found.to_json(),
            }
            for metric in METRICS
        }
        return {
            "method": repr(self.method),
            "paper": self.method.paper,
            "fidelity": self.method.fidelity,
            "leaves_out": self.method.leaves_out,
            "status": solution.status,
            "reasons": list(solution.reasons),
            "predicted": self.chosen.predicted,
            "predicted_target": self.chosen.meaning,
            "said": self.chosen.said,
            "certified": None if certified is None else certified.to_json(),
            "uniform": self.uniform_label,
            "used": {name: list(pair) for name, pair in self.used.items()},
            "measured": metrics,
            "passes": self.passes,
            "seconds": self.seconds,
            "checkpoint_bytes": self.checkpoint_bytes,
            "choices": None if solution.allocation is None else dict(solution.choices),
        }


def run(
    workload: Workload,
    method: str | Method = "house",
    *,
    budgets: Budgets = None,
    space: Space | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Ran:
    """Profile, solve, and whatever else the method does; apply the result and measure it on the evaluation data.

    Args:
        workload: the network, its data and its task; the model is left bit-identical.
        method: a name with options, ``evopress[generations=20]``, or a recipe.
        budgets: as in `solve`; only a method that minimises a resource itself can do without.
        space: choices per layer, of which the method takes those that it can; default `Space.simple()`.
        out: folder for problem.json, solution.json and the checkpoint.
        seed: of whatever is random.
        jobs: processes that share measurements, as in `profile`; their time is not in ``passes``.
        resume: a folder for finished measurements; what lies there is not measured again.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        UsageError: an unknown method; no budget; data or a network that the method cannot work with.
    """
    recipe = method if isinstance(method, Method) else method_named(method)
    tick = progress or silent
    folder = None if resume is None else Path(resume)
    choices = space or Space.simple()
    workload.check()
    fb, meter = one_pass(workload), Meter()
    plain = stated_costs(workload, choices, budgets)
    with meter.on():
        problem = profiled(recipe, workload, choices, jobs, _inside(folder, "profile"), tick)
        setting = Setting(
            workload=workload, problem=budgeted(recipe, problem, plain.budgets), seed=seed, jobs=jobs,
            folder=_inside(folder, "choosing"), progress=tick,
        )  # fmt: skip
        chosen = recipe.allocate(setting)
    ran = Ran(method=recipe, chosen=chosen, judged=None, passes=meter.cpu / fb, seconds=meter.seconds)
    solution = chosen.solution
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        save_problem(chosen.problem, Path(out) / "problem.json")
        solution.save(Path(out) / "solution.json")
    if solution.allocation is None:
        return ran
    label, uniform = judged_uniform(workload, plain, tick)
    known = layer_statistics(workload, solution, tick)
    where = None if out is None else Path(out) / "checkpoint"
    stored = None if where is None else compress(workload.model, solution, where, known, progress=tick)
    return replace(
        ran,
        judged=compared(workload, applied(workload, solution, known, tick), tick),
        uniform=uniform[0] if uniform else None,
        uniform_label=label,
        used={
            row.resource: (
                float(solution.totals[row.resource]),
                float(uniform[1][row.resource]) if uniform else None,
            )
            for row in plain.budgets or (Budget(resource="weight_bytes"),)
            if row.resource is not None
        },
        checkpoint_bytes=None if stored is None else stored.bytes - stored.described,
    )


def method_named(text: str) -> Method:
    """The recipe of ``name`` or ``name[option=value]``.

    Raises:
        UsageError: there is none of that name, or it has no such option.
    """
    name, options = split_spec(text)
    made = registry.make("methods", name, options)
    if not isinstance(made, Method):
        raise UsageError(f"method {name!r} is a {type(made).__name__}: a method derives from allocator.methods.method")
    return made


def profiled(
    method: Method, workload: Workload, space: Space, jobs: int | None, folder: Path | None, progress: Progress
) -> Problem:
    """The profile that the method needs."""
    made = [registry.make("profilers", one.name, one.options) for one in method.statistics()]
    data = method.data(workload)
    own = method.measured_space(data, method.space(space), _inside(folder, "space"), progress)
    return profile(data, own, made, progress, folder, jobs, couple=method.couple)


def budgeted(method: Method, problem: Problem, rows: Sequence[Budget]) -> Problem:
    """The method's statement of a profile, under these rows and its own.

    Raises:
        UsageError: no row, and the method needs one.
    """
    if method.needs_budget and not rows:
        raise UsageError(
            f"method {method.name} needs a budget, such as weight_bytes=25%: without one nothing need be compressed"
        )
    stated = method.stated(problem)
    return stated.replace(budgets=(*rows, *stated.budgets))


def stated_costs(workload: Workload, space: Space, budgets: Budgets) -> Problem:
    """The whole space with its costs and the budgets in numbers: shares and bits mean the same for every method."""
    plain = profile(workload, space, PLAIN)
    return apply_budgets(plain, budgets)


def judged_uniform(
    workload: Workload, plain: Problem, progress: Progress = silent
) -> tuple[str | None, tuple[Judged, Mapping[str, Number]] | None]:
    """Label, judgement and totals of the best uniform allocation within the budgets."""
    solution = solve(plain, "uniform", threads=1)
    if solution.allocation is None:
        return None, None
    rows = solution.allocation.rows()
    labels = [plain.label_codes.table[code] for code in plain.label_codes.code[rows]]
    common = max(sorted(set(labels)), key=labels.count)
    network = applied(workload, solution, progress=progress)
    return common, (compared(workload, network, progress), solution.totals)


def _inside(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _measured(judged: Judged | None, metric: str) -> dict[str, float] | None:
    if judged is None or metric not in judged.sums:
        return None
    found = judged.value(metric)
    return {"value": found.value, "stderr": found.stderr}
