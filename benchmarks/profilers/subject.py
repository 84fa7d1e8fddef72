"""What is measured: a network with its choices, and the held-out pictures that statistics are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from allocator import Problem, profile
from allocator.demos import demo_named
from allocator.demos.runner import budget_of
from allocator.space import Space
from allocator.statement import IntArray
from allocator.tasks.batches import count
from allocator.tasks.protocol import Batch
from allocator.workload import Workload

FIDELITY = 2_000
"""Held-out samples by which predictions are judged; allocations are judged by the loss on all of them."""


@dataclass(frozen=True)
class Subject:
    """A workload and its space. samples: evaluation samples that predictions are compared on, whole batches of them."""

    workload: Workload
    space: Space
    samples: int = FIDELITY

    @staticmethod
    def named(name: str) -> Subject:
        """A built-in workload.

        Raises:
            UnavailableError: its data are not here.
        """
        demo = demo_named(name)
        return Subject(demo.workload(), demo.space())

    @cached_property
    def plain(self) -> Problem:
        """Groups, choices and costs; its scores, which cost nothing, are not used."""
        return profile(self.workload, self.space, "weight_error")

    @cached_property
    def held_out(self) -> list[Batch]:
        """The first evaluation batches."""
        kept: list[Batch] = []
        for batch in self.workload.evaluation:
            if sum(map(count, kept)) >= self.samples:
                break
            kept.append(batch)
        return kept

    @cached_property
    def labels(self) -> list[str]:
        """The label of every choice, in the order of the problem's rows."""
        codes = self.plain.label_codes
        return [codes.table[code] for code in codes.code]

    def uniform(self, label: str) -> IntArray:
        """The allocation that gives every group the choice of that label."""
        spans = pairwise(self.plain.indptr.tolist())
        return np.array([self.labels[start:stop].index(label) for start, stop in spans], np.int64)

    def budget(self, label: str) -> int:
        """weight_bytes of `uniform`: the average of its bits over weights, scales and all else included."""
        return budget_of(self.plain, label)
