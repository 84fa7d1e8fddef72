"""What a choice does to the network's answers, measured: one layer changed at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.measurement import Measured, ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.tasks.protocol import Batch
from allocator.workload import Workload
from profilers._blocks import blocks
from profilers._findings import Findings
from profilers._plan import Plan, Target
from profilers._progress import Progress
from profilers._replay import Recording, record, replay
from profilers._run import Profiler
from profilers._score import Score
from profilers._switch import switched

Cell: TypeAlias = tuple[Tensor, Tensor]
"""(sum, count) per sample of one batch."""


@dataclass(frozen=True, kw_only=True)
class Kl(Profiler):
    """``kl``: mean KL(p_float ‖ p_choice) in nats per position (image, token, text) of the calibration data.

    For every layer and choice the weight is replaced by what the applier would store, and the softmax of the logits
    compared with the float network's, p log(p/q) in float64. Per sample the positions add up; the score is
    Σ divergence / Σ positions with its standard error over samples. Signed: rounding may leave −1e-17.

    Measured, so right also where a quadratic model fails (2 and 3 bits, low rank), but a forward pass per choice:
    about half of one, since blocks that end before the layer starts are remembered and not run again. The remembered
    outputs give the same bits; this is checked on the first batch for every cut, and a network that fails is run in
    full, with a warning.

    Attributes:
        samples: use only the first so many rows of calibration data (images, sequences, pairs of texts); 32 to 64
            usually rank choices as well as 256.
        cache_bytes: memory for remembered outputs; batches are taken as many at a time as fit, at least one.
            0: remember nothing.
    """

    name: ClassVar[str] = "kl"
    samples: int | None = None
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``kl`` of every choice."""
        batches = list(self._batches(plan.workload))
        cells: dict[tuple[Target, int], list[Cell]] = {}
        with torch.no_grad():
            for done, recordings in self._chunks(plan, batches):
                for place, target in enumerate(plan.targets):
                    for key, more in self._measured(plan, target, recordings, done):
                        cells.setdefault((target, key), []).extend(more)
                    finished = done * len(plan.targets) + (place + 1) * len(recordings)
                    progress("kl", finished, len(batches) * len(plan.targets))
        found = [[_ratio(cells[target, place]) for place in range(len(target.menu))] for target in plan.targets]
        score = Score(
            [[cell.value for cell in row] for row in found],
            [[cell.stderr for cell in row] for row in found],
            unit="nat",
            target="kl",
            per=plan.workload.task.per,
        )
        return Findings(scores={"kl": score})

    def _measured(
        self, plan: Plan, target: Target, recordings: list[Recording], done: int
    ) -> Iterator[tuple[int, list[Cell]]]:
        """`_divergences`, or what an earlier run kept of them."""
        key = ("kl", self, target.name, done, len(recordings))
        kept = plan.parts.take(*key)
        if kept is None:
            found = [cells for _, cells in _divergences(plan, target, recordings)]
            sums, counts = ([torch.cat([cell[i] for cell in cells]) for cells in found] for i in (0, 1))
            kept = {"sum": torch.stack(sums), "count": torch.stack(counts)}
            plan.parts.keep(kept, *key)
        for place, cell in enumerate(zip(kept["sum"], kept["count"], strict=True)):
            yield place, [cell]

    def _batches(self, workload: Workload) -> Iterator[Batch]:
        left = self.samples
        for batch in workload.calibration:
            size = count(batch) if left is None else min(left, count(batch))
            if size == 0:
                return
            yield batch if size == count(batch) else take(batch, 0, size)
            left = None if left is None else left - size

    def _chunks(self, plan: Plan, batches: list[Batch]) -> Iterator[tuple[int, list[Recording]]]:
        """(batches before, recordings) so that each chunk fits the cache; the first batch's replays are checked."""
        kept = list(blocks(plan.workload.model)) if self.cache_bytes else []
        layers = [module for target in plan.targets for module in target.modules]
        chunk: list[Recording] = []
        for done, batch in enumerate(batches):
            recording = record(plan.workload.task, plan.workload.model, batch, kept, layers)
            if done == 0:
                kept = _trusted(plan, recording, kept)
                recording.keep(kept)
            if chunk and sum(r.size for r in chunk) + recording.size > self.cache_bytes:
                yield done - len(chunk), chunk
                chunk = []
            chunk.append(recording)
        yield len(batches) - len(chunk), chunk


def _divergences(plan: Plan, target: Target, recordings: list[Recording]) -> Iterator[tuple[int, list[Cell]]]:
    """(choice, (sum, count) per sample of every recorded batch), one choice switched at a time."""
    task, model, weight = plan.workload.task, plan.workload.model, target.unit.weight
    masks = [task.mask(recording.batch) for recording in recordings]
    for place in range(len(target.menu)):
        other = target.approximation(place)
        if torch.equal(other, weight):
            zeros = [torch.zeros(recording.logits.shape[:-1]) for recording in recordings]
            yield place, [per_sample(zero, mask) for zero, mask in zip(zeros, masks, strict=True)]
            continue
        with switched(weight, other):
            changed = [replay(task, model, r, r.before(target.modules)) for r in recordings]
        yield (
            place,
            [
                per_sample(divergence(recording.logits, logits), mask)
                for recording, logits, mask in zip(recordings, changed, masks, strict=True)
            ],
        )


def _trusted(plan: Plan, recording: Recording, kept: list[Module]) -> list[Module]:
    """The blocks, if every cut of this recording gives the recorded logits bit by bit; else none, with a warning."""
    checked: set[int] = set()
    for target in plan.targets:
        remembered = recording.before(target.modules)
        if len(remembered) in checked:
            continue
        checked.add(len(remembered))
        if not _same(plan, recording, remembered):
            warnings.warn(
                f"the network of {plan.workload.name} gives other logits when the blocks before {target.name} hand "
                "back what they returned before (a side effect, or randomness): kl runs it in full for every choice",
                stacklevel=2,
            )
            return []
    return kept


def _same(plan: Plan, recording: Recording, remembered: Sequence[tuple[Module, object]]) -> bool:
    try:
        logits = replay(plan.workload.task, plan.workload.model, recording, remembered)
    except Exception:  # a block that was left out had more to do than return: whatever it breaks, the rest must run
        if not remembered:
            raise
        return False
    return torch.equal(logits, recording.logits)


def _ratio(cells: list[Cell]) -> Measured:
    sums, counts = torch.cat([s for s, _ in cells]), torch.cat([c for _, c in cells])
    if len(sums) < 2:
        raise UsageError(
            f"kl needs at least 2 calibration samples for a standard error, and got {len(sums)}: give more, or several "
            "batches where a whole batch is one sample"
        )
    return ratio(sums, counts)
