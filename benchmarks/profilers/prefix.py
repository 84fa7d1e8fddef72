"""What the remembered prefix saves when the divergence of every single choice is measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from allocator import Problem, profile
from allocator.workload import Workload
from benchmarks.profilers.bench import Bench
from benchmarks.profilers.cost import best_cpu_seconds
from benchmarks.profilers.truth import Held, kls, singles
from profilers.kl import Kl

ROUNDS = 3


def prefix(bench: Bench) -> Mapping[str, float]:
    """``speedup``: CPU time of profiling ``kl`` without memory over that with it, on one calibration batch.

    ``exact``: 1 if all scores are, bit by bit, those of whole runs of compressed copies of the network (`truth`).
    """
    subject = bench.subject
    workload = subject.workload
    batch = next(iter(workload.calibration))
    shortened = Workload(workload.model, [batch], workload.evaluation, workload.task, workload.name)
    problems: dict[str, Problem] = {}

    def profiled(name: str, statistic: Kl) -> None:
        problems[name] = profile(shortened, subject.space, statistic)

    seconds = best_cpu_seconds(
        {"whole": partial(profiled, "whole", Kl(cache_bytes=0)), "prefix": partial(profiled, "prefix", Kl())}, ROUNDS
    )
    truth = kls(Held(shortened, [batch]), singles(subject.plain))
    return {
        "speedup": seconds["whole"] / seconds["prefix"],
        "exact": float(all(problem.scores["kl"].tolist() == truth for problem in problems.values())),
        "whole_s": seconds["whole"],
        "prefix_s": seconds["prefix"],
    }
