"""The measured divergence of whole allocations as the fitness of a search."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from allocator import registry
from allocator.applying import fitted
from allocator.faithfulness.held_out import HeldOut
from allocator.faithfulness.weights import Weights
from allocator.methods.choosing import Chosen, Setting
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.statement import IntArray
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload
from profilers._fast_path import opened
from profilers._replay import Recording

FEWEST = 2


class MeasuredKl:
    """Mean KL(float ‖ changed) of an allocation on the calibration data, or on the first rows of it; if choices look
    better on data that they are fitted to, on the half that they are not fitted to.

    To be called inside `untouched`, in a network opened as the profile found it. Allocations are measured once, and the
    float network's logits are kept. Where the rows of a batch hang together (texts that are compared with each other),
    a share of the data is no less than all of it.
    """

    __qualname__ = "MeasuredKl"

    def __init__(self, workload: Workload, problem: Problem) -> None:
        known, seen = fitted(workload, problem)
        self._seen = Workload(seen.model, seen.evaluation, seen.calibration, seen.task, seen.name)
        self._indptr = problem.indptr
        self._weights = Weights(workload.model, problem, known)
        self._held: dict[int, tuple[HeldOut, list[list[Recording]]]] = {}
        self._known: dict[tuple[bytes, int], float] = {}
        self._rows = sum(map(count, seen.calibration))
        everything = self._recordings(self._rows)[1]
        self._whole = any(len(r.logits) != count(r.batch) for chunk in everything for r in chunk)

    def __call__(self, choice: NDArray[np.int32], sample: float | None) -> float:
        """The loss of the choices [G] on that share of the rows; all for None."""
        every = sample is None or self._whole
        samples = self._rows if every else min(self._rows, max(FEWEST, math.ceil((sample or 1) * self._rows)))
        key = (np.asarray(choice, np.int32).tobytes(), samples)
        if key not in self._known:
            rows = self._indptr[:-1] + np.asarray(choice, np.int64)
            self._known[key] = self._measured(rows, samples)
        return self._known[key]

    def _recordings(self, samples: int) -> tuple[HeldOut, list[list[Recording]]]:
        if samples not in self._held:
            held = HeldOut(self._seen, samples, cache_bytes=0)
            with torch.no_grad():
                self._held[samples] = held, [chunk for _, chunk in held.chunks(self._weights.modules)]
        return self._held[samples]

    def _measured(self, rows: IntArray, samples: int) -> float:
        held, chunks = self._recordings(samples)
        changes, task = self._weights.changes(rows), self._seen.task
        total = mass = 0.0
        with torch.no_grad():
            for chunk in chunks:
                for recording, logits in zip(chunk, held.logits(chunk, changes), strict=True):
                    sums, counts = per_sample(divergence(recording.logits, logits), task.mask(recording.batch))
                    total, mass = total + float(sums.sum()), mass + float(counts.sum())
        return total / mass if mass else 0.0


def evolved(setting: Setting, generations: int, offspring: int) -> Chosen:
    """The fittest allocation of an evolution."""
    problem = setting.problem
    beginning = solve(problem, "uniform", seed=setting.seed, threads=1)
    if beginning.allocation is None:
        beginning = solve(problem, seed=setting.seed, threads=1)
    start = None if beginning.allocation is None else beginning
    with untouched(setting.workload.model), opened(setting.workload):
        fitness = MeasuredKl(setting.workload, problem)
        options = {"generations": generations, "offspring": offspring, "fitness": fitness}
        solver = registry.make("solvers", "evolutionary", options)
        solution = solve(problem, solver, seed=setting.seed, threads=1, start=start)
        if solution.allocation is None:
            return Chosen(solution=solution, problem=problem, predicted=None)
        best = fitness(solution.allocation.choice, None)
    chosen = Chosen(solution=solution, problem=problem, predicted=best, target="kl")
    return replace(chosen, said=f"KL {best:.4g} nat on the calibration data that it was chosen on")
