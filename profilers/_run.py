"""One or several statistics measured on one plan, and the problem that comes of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from allocator.applier.statistics import Statistics, digest
from allocator.errors import AllocatorError, UsageError
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.space import Space
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.workload import Workload
from profilers._couplings import coupled
from profilers._fast_path import opened
from profilers._findings import Findings, Gathered
from profilers._groups import model_sha256, provenance, rows, versions
from profilers._parts import Parts
from profilers._plan import Plan, plan
from profilers._statistics import with_statistics
from profilers._workers import Workers


@runtime_checkable
class Statistic(Protocol):
    """A profiler of this package: adds its findings to a plan, so that several can share groups and costs."""

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """What it says of every choice of every target; runs inside `untouched` and leaves the weights as they were."""
        ...


class Profiler:
    """Base of the profilers here: turns `measure` into `profile`."""

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """See `Statistic`."""
        raise UsageError(f"{type(self).__name__} measures nothing: a profiler defines measure(plan, progress)")

    def profile(self, workload: Workload, space: Space, progress: Progress = silent) -> Problem:
        """The problem with this statistic's scores. The model is handed back bit-identical.

        Raises:
            UsageError: data that cannot be trusted (`Workload.check`), or a network that cannot be followed (`plan`).
            ActionError: a choice that cannot be done to a layer.
        """
        return run((self,), workload, space, progress)


def run(
    statistics: Sequence[Statistic],
    workload: Workload,
    space: Space,
    progress: Progress = silent,
    resume: Path | None = None,
    jobs: int | None = 1,
    couple: Collection[str] = (),
    given: Statistics | None = None,
) -> Problem:
    """Measure all statistics on the same groups, choices and data; see `Profiler.profile`.

    ``resume``: a folder for finished parts; those that a killed run left there are not measured again.
    ``jobs``: see `Workers`.
    ``couple``: kinds of couplings to be found and written, see `allocator.grouping.find`.
    ``given``: what the actions need to know of the layers, if it was measured already, on this or other data.
    """
    return Problem.from_rows(measured_rows(statistics, workload, space, progress, resume, jobs, couple, given))


def measured_rows(
    statistics: Sequence[Statistic],
    workload: Workload,
    space: Space,
    progress: Progress = silent,
    resume: Path | None = None,
    jobs: int | None = 1,
    couple: Collection[str] = (),
    given: Statistics | None = None,
) -> dict[str, Any]:
    """The same as plain data, in the row form of problem.json."""
    workers = Workers(jobs)
    digests = workload.check()
    before = model_sha256(workload.model)
    found = Gathered()
    with untouched(workload.model), opened(workload):
        laid_out = plan(workload, space)
        sets = coupled(laid_out, space, couple)
        laid_out = with_statistics(laid_out, given, progress)
        parts = Parts(resume, _identity(laid_out, before))
        laid_out = replace(laid_out, parts=parts, workers=workers, model_sha256=before)
        for statistic in statistics:
            _gather(found, statistic, statistic.measure(laid_out, progress))
    if not found.scores:
        raise UsageError(
            f"{', '.join(map(repr, statistics))}: none of them gives a score, so there is no loss; add one that does, "
            "such as ggn"
        )
    if model_sha256(workload.model) != before:
        raise AllocatorError(
            f"profiling changed the state of the model of {workload.name}: its forward pass must be rewriting its own "
            "parameters. Load it anew, and make forward leave them alone"
        )
    return rows(laid_out, found, provenance(digests, before, statistics), sets)


def _gather(gathered: Gathered, statistic: Statistic, findings: Findings) -> None:
    """Add what one statistic found; two may not measure the same thing."""
    by = repr(statistic)
    for name in [*findings.scores, *findings.stats, *findings.costs]:
        if name in gathered.made_by:
            raise UsageError(f"two profilers measure {name!r}: {gathered.made_by[name]} and {by}; keep one")
        gathered.made_by[name] = by
    gathered.scores.update(findings.scores)
    gathered.stats.update(findings.stats)
    gathered.costs.update(findings.costs)
    gathered.bases.extend(findings.bases)
    if findings.notes:
        gathered.notes[getattr(statistic, "name", type(statistic).__name__)] = dict(findings.notes)


def _identity(laid_out: Plan, model: str) -> str:
    """What every part of a measurement depends on: weights, layers with their options and statistics, data, task,
    choices, versions."""
    menus = [(target.name, [item.action.to_json() for item in target.menu]) for target in laid_out.targets]
    workload = laid_out.workload
    batches = [count(batch) for batch in workload.calibration]
    network = [_words(part) for part in (workload.model, workload.task, type(workload.model), type(workload.task))]
    fitted = digest({target.name: target.statistics for target in laid_out.targets})
    everything = (model, network, workload.digests("calibration"), batches, menus, fitted, versions())
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def _words(thing: object) -> str:
    """Its repr without addresses, which differ between two runs."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))
