"""What a choice does to the network's answers, measured: one layer changed at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.measurement import Measured, ratio
from profilers._columns import enough
from profilers._delta_store import DeltaStore
from profilers._findings import Findings
from profilers._interactions import Meeting
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._score import Score
from profilers._shards import Piece
from profilers._single import FLOAT, Single


@dataclass(frozen=True, kw_only=True)
class Kl(Profiler):
    """``kl``: mean KL(p_float ‖ p_choice) in nats per position (image, token, text) of the calibration data.

    For every layer and choice the weight is replaced by what the applier would store, and the softmax of the logits
    compared with the float network's, p log(p/q) in float64. Per sample the positions add up; the score is
    Σ divergence / Σ positions with its standard error over samples. Signed: rounding may leave −1e-17.

    Measured, so right also where a quadratic model fails (2 and 3 bits, low rank), but a forward pass per choice:
    about half of one, since what ends before the layer starts is remembered and not run again. The remembered
    outputs give the same bits; this is checked on the first rows for every cut, and a network that fails is run in
    full, with a warning.

    The changes of the logits, δ = z(changed) − z(float), say how choices of different layers meet. They can be kept,
    for `allocator.logit_sum.LogitSum`, which predicts KL(p ‖ softmax(z + Σ δ)) of whole allocations; or become the
    interactions of the score: ½ Σ_positions Var_p(Σ_g δ_g) less its diagonal, over the number of positions, the second
    order of that divergence. Both cost little beside the passes. With more than ``top`` classes the rest is folded into
    a mean and ``sketches`` random sums (see `allocator.logit_sum.Positions`), kept in half precision.

    Attributes:
        samples: use only the first so many rows of calibration data (images, sequences, pairs of texts); 32 to 64
            usually rank choices as well as 256.
        cache_bytes: memory for remembered outputs, about; batches are taken as many at a time as fit, at least one.
            0: remember nothing.
        deltas: folder in which logit deltas are kept; "" for none. One that holds another measurement is refused.
        interactions: give the score interactions from the deltas.
        top: classes of a position that are followed one by one.
        sketches: random sums of the other classes.
        seed: of their signs.
    """

    name: ClassVar[str] = "kl"
    samples: int | None = None
    cache_bytes: int = 1 << 30
    deltas: str = ""
    interactions: bool = False
    top: int = 32
    sketches: int = 8
    seed: int = 0

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``kl`` of every choice, and its interactions if asked for.

        Raises:
            UsageError: fewer than two samples; ``top`` or ``sketches`` below 1; a folder with other deltas.
        """
        if self.top < 1 or self.sketches < 1:
            raise UsageError(f"kl has top={self.top} and sketches={self.sketches}: give each 1 or more")
        single = Single(samples=self.samples, cache_bytes=self.cache_bytes)
        if self.deltas or self.interactions:
            single = replace(single, top=self.top, sketches=self.sketches, seed=self.seed)
        store: DeltaStore | None = None
        meeting = Meeting([len(target.menu) for target in plan.targets])
        cells: list[list[Piece]] = [[] for _ in plan.targets]
        for (place, start, _, _, classes), piece in single.run(plan, progress):
            if place == FLOAT:
                if self.deltas:
                    store = store or DeltaStore(Path(self.deltas), plan, single.form(classes), self.samples)
                    store.positions(start, piece)
                if self.interactions:
                    meeting.positions(piece, self.sketches)
                continue
            cells[place].append({"sum": piece["sum"], "count": piece["count"]})
            if store is not None:
                store.deltas(place, start, piece["delta"])
            if self.interactions:
                meeting.deltas(place, piece["delta"])
        found = [_ratios(pieces) for pieces in cells]
        if store is not None:
            store.finish()
        score = Score(
            [[cell.value for cell in row] for row in found],
            [[cell.stderr for cell in row] for row in found],
            unit="nat",
            target="kl",
            per=plan.workload.task.per,
        )
        return Findings(scores={"kl": score}, bases=[meeting.basis("kl")] if self.interactions else [])


def _ratios(pieces: Sequence[Piece]) -> list[Measured]:
    """Score and standard error of each choice of a target, from its pieces."""
    sums = torch.cat([piece["sum"] for piece in pieces], 1)
    counts: Tensor = torch.cat([piece["count"] for piece in pieces], 1)
    enough("kl", sums.shape[1])
    return [ratio(own, mass) for own, mass in zip(sums, counts, strict=True)]
