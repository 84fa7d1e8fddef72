"""compare_methods(): many methods at the same stored bytes, on the same data, judged on the same samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from allocator.applying import applied
from allocator.errors import AllocatorError, UsageError
from allocator.formats.files import replacing
from allocator.methods.choosing import Chosen, Setting
from allocator.methods.forecasting import forecasts
from allocator.methods.judging import Judged, compared
from allocator.methods.metering import Meter, one_pass
from allocator.methods.method import Method
from allocator.methods.running import Budgets, budgeted, method_named, profiled, stated_costs
from allocator.methods.standing import Contest, Row, contest
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.solution import Solution
from allocator.space import Space
from allocator.workload import Workload
from profilers._groups import model_sha256, versions
from profilers._parts import Parts

UNIFORM = "uniform"


def compare_methods(
    workload: Workload,
    methods: Sequence[str | Method] | None = None,
    *,
    budgets: Sequence[Budgets] = (),
    space: Space | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    most_passes: float | None = None,
) -> Contest:
    """Every method under every budget: what it predicts, what is measured, whether that differs from uniform.

    Each method profiles the calibration data for itself, so that its passes are its own; two that ask for the same
    statistics of the same choices share a measurement, which counts for both. What is chosen is applied to a copy
    of the network and judged on the evaluation data, sample by sample; differences are paired. A method that cannot
    work with the network or finds nothing within the budget has a row that says why.

    Args:
        workload: the network, its data and its task; the model is left bit-identical.
        methods: names with options, or recipes; default all that are installed and available.
        budgets: one or several, each as in `solve`; resolved once, on the whole space, for all methods.
        space: choices per layer; default `Space.simple()`.
        seed: of whatever is random.
        resume: a folder in which each finished row is kept; what lies there is not done again.
        progress: called as ``progress(stage, done, total)``.
        most_passes: methods that are expected to take more (`Method.forecast`) are not begun; their rows say so.

    Raises:
        UsageError: no budget; an unknown method; data that cannot be trusted.
    """
    if not budgets:
        raise UsageError("compare_methods needs at least one budget, such as weight_bytes=25%")
    tick = progress or silent
    recipes = [one if isinstance(one, Method) else method_named(one) for one in methods or available()]
    digests = workload.check()
    choices = space or Space.simple()
    stated = [stated_costs(workload, choices, one) for one in budgets]
    bench = _Bench(workload, choices, seed, None if resume is None else Path(resume), one_pass(workload), tick, {})
    identity = hashlib.sha256(
        repr((model_sha256(workload.model), digests, repr(workload.task), choices.to_json(), seed, versions())).encode()
    ).hexdigest()
    judge = _Judge(workload, Parts(None if resume is None else Path(resume) / "judged", identity), tick)
    expected = forecasts(workload, recipes, choices)
    rows: list[Row] = []
    total = len(recipes) * len(stated)
    for place, (text, plain) in enumerate(zip(budgets, stated, strict=True)):
        rows.append(_uniform(str(text), plain, judge))
        for done, (recipe, passes) in enumerate(zip(recipes, expected, strict=True)):
            about = "" if passes is None else f", about {passes:,.0f} passes"
            tick(f"methods: {recipe.name}{about}", place * len(recipes) + done, total)
            rows.append(bench.row(recipe, str(text), plain, judge, identity, passes, most_passes))
    tick("methods", total, total)
    return contest(workload.name, rows, len(workload.digests("evaluation")))


def available() -> list[str]:
    """Names of the methods that are installed and can be loaded."""
    from allocator.listing import listed

    return [one.name for one in listed("methods") if one.available]


@dataclass(frozen=True, eq=False)
class _Judge:
    """Judges solutions, equal ones once."""

    workload: Workload
    parts: Parts
    tick: Progress

    def __call__(self, solution: Solution) -> Judged:
        key = ("judged", sorted((name, repr(action)) for name, action in solution.actions.items()))
        kept = self.parts.take(*key)
        if kept is None:
            network = applied(self.workload, solution, progress=self.tick)
            found = compared(self.workload, network, self.tick)
            kept = _tensors(found)
            self.parts.keep(kept, *key)
        return _judged(kept)


@dataclass(frozen=True, eq=False)
class _Bench:
    """Runs methods; profiles that several ask for are measured once, and what they took is remembered."""

    workload: Workload
    space: Space
    seed: int
    folder: Path | None
    fb: float
    tick: Progress
    profiles: dict[str, tuple[Problem, Meter]]

    def row(
        self,
        recipe: Method,
        budget: str,
        plain: Problem,
        judge: _Judge,
        identity: str,
        expected: float | None,
        most: float | None,
    ) -> Row:
        """One method under one budget, from the folder if it is there; not begun if that would take too long."""
        limits = [[row.resource, row.max, row.min] for row in plain.budgets]
        key = hashlib.sha256(repr((identity, repr(recipe), limits)).encode()).hexdigest()[:24]
        path = None if self.folder is None else self.folder / "rows" / f"{key}.json"
        if path is not None and path.exists():
            kept = msgspec.json.decode(path.read_bytes())
            return Row.revived(recipe, budget, kept, judge.parts.take("row", key), _judged)
        if most is not None and expected is not None and expected > most:
            said = f"left out: it would take about {expected:,.0f} passes, and at most {most:,.6g} were asked for"
            return Row(
                method=recipe.name, options=repr(recipe), fidelity=recipe.fidelity, budget=budget, failed=said,
                forecast=expected,
            )  # fmt: skip
        row = self._made(recipe, budget, plain, judge, None if self.folder is None else self.folder / key)
        row = replace(row, forecast=expected)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if row.judged is not None:
                judge.parts.keep(_tensors(row.judged), "row", key)
            with replacing(path) as stream:
                stream.write(msgspec.json.encode(row.kept()))
        return row

    def _made(self, recipe: Method, budget: str, plain: Problem, judge: _Judge, folder: Path | None) -> Row:
        meter = Meter()
        try:
            problem, profiling = self._profile(recipe)
            with meter.on():
                setting = Setting(
                    workload=self.workload,
                    problem=budgeted(recipe, problem, plain.budgets),
                    seed=self.seed,
                    jobs=1,
                    folder=folder,
                    progress=self.tick,
                )
                chosen = recipe.allocate(setting)
            judged = None if chosen.solution.allocation is None else judge(chosen.solution)
        except AllocatorError as error:
            return Row(
                method=recipe.name, options=repr(recipe), fidelity=recipe.fidelity, budget=budget, failed=str(error)
            )
        return _row(recipe, budget, plain, chosen, judged, profiling, meter, self.fb)

    def _profile(self, recipe: Method) -> tuple[Problem, Meter]:
        own = type(recipe).measured_space
        asked = (
            [str(one) for one in recipe.statistics()],
            recipe.space(self.space).to_json(),
            recipe.couple,
            None if own is Method.measured_space else (own.__qualname__, sorted(vars(recipe).items())),
            recipe.data(self.workload) is self.workload,
        )
        key = hashlib.sha256(repr(asked).encode()).hexdigest()[:24]
        if key not in self.profiles:
            meter, folder = Meter(), None if self.folder is None else self.folder / "profiles" / key
            with meter.on():
                problem = profiled(recipe, self.workload, self.space, 1, folder, self.tick)
            self.profiles[key] = problem, meter
        return self.profiles[key]


def _row(
    recipe: Method,
    budget: str,
    plain: Problem,
    chosen: Chosen,
    judged: Judged | None,
    profiling: Meter,
    meter: Meter,
    fb: float,
) -> Row:
    solution = chosen.solution
    return Row(
        method=recipe.name,
        options=repr(recipe),
        fidelity=recipe.fidelity,
        budget=budget,
        failed=None if judged is not None else f"{solution.status}: {'; '.join(solution.reasons) or 'nothing found'}",
        used=_used(plain, solution),
        limits={str(row.resource): row.max for row in plain.budgets if row.resource is not None},
        predicted=chosen.predicted,
        unit=chosen.meaning,
        said=chosen.said,
        lossless=None if chosen.certified is None else chosen.certified.lossless,
        passes=(profiling.cpu + meter.cpu) / fb,
        seconds=profiling.seconds + meter.seconds,
        choices=None if solution.allocation is None else dict(solution.choices),
        judged=judged,
    )


def _uniform(budget: str, plain: Problem, judge: _Judge) -> Row:
    """The yardstick: the best uniform allocation within the budget, by the squared error of the weights."""
    solution = solve(plain, UNIFORM, threads=1)
    found = solution.allocation is not None
    return Row(
        method=UNIFORM,
        options="",
        fidelity="own",
        budget=budget,
        failed=None if found else "no uniform allocation is within the budget",
        used=_used(plain, solution),
        limits={str(row.resource): row.max for row in plain.budgets if row.resource is not None},
        choices=dict(solution.choices) if found else None,
        judged=judge(solution) if found else None,
    )


def _used(plain: Problem, solution: Solution) -> dict[str, float]:
    if solution.allocation is None:
        return {}
    return {
        str(row.resource): float(solution.totals[row.resource]) for row in plain.budgets if row.resource is not None
    }


def _tensors(judged: Judged) -> dict[str, torch.Tensor]:
    assert judged.original is not None, "judged beside the float network"
    return {
        f"{part}/{kind}/{name}": torch.from_numpy(column)
        for part, one in (("own", judged), ("float", judged.original))
        for kind, columns in (("sum", one.sums), ("count", one.counts))
        for name, column in columns.items()
    }


def _judged(kept: Mapping[str, torch.Tensor]) -> Judged:
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for key, tensor in kept.items():
        part, kind, name = key.split("/", 2)
        parts.setdefault((part, kind), {})[name] = tensor.double().numpy()
    original = Judged(parts["float", "sum"], parts["float", "count"])
    return Judged(parts["own", "sum"], parts["own", "count"], original)
