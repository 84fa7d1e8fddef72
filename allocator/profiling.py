"""The verb that turns a network into an allocation problem."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allocator import registry
from allocator.errors import UsageError
from allocator.progress import Progress, silent

if TYPE_CHECKING:
    from allocator.applier.statistics import Statistics
    from allocator.problem import Problem
    from allocator.space import Space
    from allocator.workload import Workload


def profile(
    workload: Workload,
    space: Space | None = None,
    profiler: str | object | Sequence[str | object] = ("ggn",),
    progress: Progress | None = None,
    resume: str | Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    couple: Collection[str] = (),
    statistics: Statistics | None = None,
) -> Problem:
    """Measure every choice of every layer and state the result as a problem; the model is left bit-identical.

    Args:
        workload: the network, its data and its task.
        space: choices per layer; default `Space.simple()`.
        profiler: names or instances; several add their scores to one problem, whose loss is the first one's first.
        progress: called as ``progress(stage, done, total)``.
        resume: a folder for finished parts; what a killed run left there is not measured again.
        jobs: processes that share the work; -1: one per core. Default: what ``joblib.parallel_config`` around the call
            says (a Dask or Ray cluster, say), and this process alone without one. The problem is the same, bit by bit.
        threads: of torch, in each process; default: as many as torch has now. Their number decides how sums are
            rounded, so equal bits need equal threads.
        couple: ``fused``, ``residual``: sets of layers to be found on the network and written as `same_choice`
            couplings (`allocator.grouping.find`), beside those that the space names.
        statistics: what actions need to know of the layers, where other data than this workload's say it; measured
            here otherwise, if an action needs any.

    Raises:
        UsageError: an unknown profiler, data or a network that cannot be trusted; see `profilers._run`.
        ActionError: a choice that cannot be done to a layer.
    """
    from allocator.space import Space
    from profilers._run import Statistic, run
    from profilers._workers import torch_threads

    wanted = [profiler] if isinstance(profiler, str) or not isinstance(profiler, Sequence) else list(profiler)
    found = [registry.make("profilers", one, {}) if isinstance(one, str) else one for one in wanted]
    if not found:
        raise UsageError(f"no profiler was given; take one or several of {', '.join(registry.entries('profilers'))}")
    shared = [one for one in found if isinstance(one, Statistic)]
    if len(shared) < len(found):
        foreign = [type(one).__name__ for one in found if not isinstance(one, Statistic)]
        if len(found) > 1 or not hasattr(found[0], "profile"):
            raise UsageError(
                f"{', '.join(foreign)} cannot share a problem with others: it has no measure(plan, progress). Run it "
                "alone by its profile(workload, space) and add its scores with Problem.with_scores"
            )
        if couple:
            raise UsageError(f"{foreign[0]} finds no couplings: leave couple out, or name them in the space")
        if jobs not in (None, 1):
            raise UsageError(
                f"{', '.join(foreign)} cannot be spread over {jobs} jobs: it has no measure(plan, progress)"
            )
        with torch_threads(threads):
            problem: Problem = found[0].profile(workload, space or Space.simple())
        return problem
    folder = None if resume is None else Path(resume)
    with torch_threads(threads):
        return run(shared, workload, space or Space.simple(), progress or silent, folder, jobs, couple, statistics)
