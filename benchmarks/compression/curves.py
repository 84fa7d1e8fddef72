"""Loss against stored bytes: uniform roundings, each kind of compression alone, and all of them in one solve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from allocator.workload import Workload
from benchmarks.compression.menus import JOINT, RECOVERED, WHOLE, WHOLE_RECOVERED
from benchmarks.compression.points import COMPENSATED, NEAREST, Point, Say, best, uniform
from benchmarks.compression.subjects import SUBJECTS, Subject

OWN = (
    "allocator/actions",
    "allocator/apart.py",
    "allocator/applier",
    "allocator/demos",
    "allocator/folding.py",
    "allocator/kinds.py",
    "allocator/logit_sum",
    "allocator/refining",
    "profilers",
    "benchmarks/compression/correlation.py",
    "benchmarks/compression/menus.py",
    "benchmarks/compression/points.py",
    "benchmarks/compression/subjects.py",
)
"""If any of it changes, points are measured again. Solvers and the core are not among it: after a change to what they
find, take another --out."""


@dataclass(frozen=True)
class Task:
    """One point of one curve: a width of uniform rounding, or a number of times fewer bytes."""

    subject: Subject
    curve: str
    at: float

    @property
    def name(self) -> str:
        """Of its file, and for patterns."""
        return f"{self.subject.name} {self.curve} {self.at:g}"

    @property
    def recovered(self) -> bool:
        """Whether it is trained after it was compressed."""
        return self.curve in (RECOVERED, WHOLE_RECOVERED)

    @property
    def own(self) -> tuple[str, ...]:
        """Its part of the sources, as `OWN`."""
        return (*OWN, "allocator/recovery") if self.recovered else OWN

    def measure(self, workload: Workload, folder: Path, say: Say) -> Point | None:
        """None where no allocation is that small; ``folder`` keeps what other points of the curve can use."""
        if self.curve in (NEAREST, COMPENSATED):
            return uniform(self.subject, workload, int(self.at), self.curve)
        training = self.subject.training if self.recovered else None
        return best(self.subject, workload, self.curve, self.at, folder, say, training)


def tasks(subjects: Mapping[str, Subject] = SUBJECTS) -> Iterator[Task]:
    """All points, curve by curve."""
    for subject in subjects.values():
        for curve in (NEAREST, COMPENSATED):
            yield from (Task(subject, curve, bits) for bits in subject.bits)
        yield from (Task(subject, WHOLE, ratio) for ratio in subject.whole)
        for curve in (*subject.kinds, JOINT):
            ratios = {*subject.ratios, *(subject.whole if curve == JOINT else ())}
            yield from (Task(subject, curve, ratio) for ratio in sorted(ratios))
        if subject.training is not None:
            yield from (Task(subject, WHOLE_RECOVERED, ratio) for ratio in subject.whole)
            yield from (Task(subject, RECOVERED, ratio) for ratio in subject.ratios)
