"""What ggn costs in FB: one forward and one backward pass over the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from allocator import profile
from benchmarks.profilers.bench import Bench, maker
from benchmarks.profilers.subject import Subject
from benchmarks.solvers.clock import cpu_seconds
from profilers.ggn import Ggn
from profilers.weight_error import WeightError

ROUNDS = 7


def cost(bench: Bench) -> Mapping[str, float]:
    """``S1`` and ``S4``: CPU time of the whole `profile` call over that of an FB, each the best of seven in turns.

    All that a user pays for is inside: the digests of the data, every choice's change of its weight, the problem.
    ``fixed`` is what a profile costs that looks at the weights alone, to see how much of it that is.
    """
    subject = bench.subject
    statistics = {"fixed": WeightError(), **{f"S{sketches}": Ggn(sketches=sketches) for sketches in (1, 4)}}
    calls = {name: partial(profile, subject.workload, subject.space, one) for name, one in statistics.items()}
    return in_fb(subject, calls)


def in_fb(subject: Subject, calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """CPU time of each call in FB, and ``fb_ms``."""
    everything: dict[str, Callable[[], object]] = {"fb": lambda: forward_backward(subject), **calls}
    best = best_cpu_seconds(everything, rounds)
    fb = best.pop("fb")
    return {name: seconds / fb for name, seconds in best.items()} | {"fb_ms": 1e3 * fb}


def best_cpu_seconds(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU time of each call, ended children included; they take turns, so that all see the same machine."""
    best = dict.fromkeys(calls, float("inf"))
    for place in range(rounds + 1):
        for name, call in calls.items():
            started = cpu_seconds()
            call()
            if place:  # the first turn pays for lazy imports and first use
                best[name] = min(best[name], cpu_seconds() - started)
    return best


def forward_backward(subject: Subject) -> None:
    """One pass there and back for every calibration batch, gradients of all parameters."""
    task, model = subject.workload.task, subject.workload.model
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for batch in subject.workload.calibration:
        with torch.enable_grad():
            loss = task.loss(task.logits(model, batch), batch)
        torch.autograd.grad(loss, wanted)


def making(name: str, bench: Bench) -> Mapping[str, float]:
    """CPU time of everything that a predictor does before it can answer, in FB, under its name."""
    make = maker(name)
    return in_fb(bench.subject, {name: lambda: make(bench.subject)}, rounds=2)
