"""Whether what a model says that interactions are worth comes true on data that the model was not made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from allocator.faithfulness.measuring import Losses
from allocator.hygiene import Curvature, curvatures
from allocator.problem import Problem
from allocator.refining.candidates import Candidate
from allocator.tasks.batches import digests
from allocator.workload import Workload


@dataclass(frozen=True)
class Belief:
    """A loss with interactions, and what its optimum gains over that without them: as it says, and as measured.

    Attributes:
        origin: ``profile`` or ``measured``.
        curvature: what its bases are made of, before anything was left out.
        in_model: loss without interactions less loss with, by the model, as a share of the former; nan if that is ≤ 0.
        cross_fit: the same of the KL on the validation data.
        stderr: of `cross_fit`, from paired differences.
        seen: validation samples that the model was made of too: unless 0, the value is no cross-fit one.
    """

    origin: str
    curvature: tuple[Curvature, ...]
    in_model: float
    cross_fit: float
    stderr: float
    seen: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; null for what is not a number."""
        numbers = {key: getattr(self, key) for key in ("in_model", "cross_fit", "stderr")}
        return {
            "origin": self.origin,
            "bases": [{**asdict(one), "ratio": one.ratio} for one in self.curvature],
            **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
            "seen": self.seen,
        }


def beliefs(
    models: Mapping[str, Problem], searched: Mapping[str, Problem], found: Sequence[Candidate], losses: Losses,
    parted: Workload,
) -> Iterator[Belief]:  # fmt: skip
    """Of each model that has interactions and led to an allocation by them.

    Args:
        models: by origin, as they are.
        searched: by origin, as they were searched on.
        found: all candidates, under all their names.
        losses: of those, on the validation data.
        parted: its evaluation data validate.
    """
    place = {name: at for at, one in enumerate(found) for name in one.names}
    for origin, problem in searched.items():
        with_, without = place.get(origin), place.get(f"{origin}, additive")
        if with_ is None or without is None:
            continue
        alone, joint = (problem.evaluate(found[at].choice).loss for at in (without, with_))
        base = losses.found[without].value
        gain = losses.difference(without, with_)
        yield Belief(
            origin,
            curvatures(models[origin]),
            (alone - joint) / alone if alone > 0 else math.nan,
            gain.value / base if base > 0 else math.nan,
            gain.stderr / base if base > 0 else math.nan,
            seen(problem, parted) if origin == "profile" else 0,
        )


def seen(problem: Problem, parted: Workload) -> int:
    """Validation samples among the calibration data that the problem says it was measured on."""
    told = (problem.notes.provenance or {}).get("calibration")
    listed = told.get("sample_digests") if isinstance(told, Mapping) else None
    if not isinstance(listed, Sequence):
        return 0
    known = {one for one in listed if isinstance(one, str)}
    return sum(digest in known for batch in parted.evaluation for digest in digests(batch))
