"""Networks with one layer changed, run over the calibration data in shards: one target, one run of batches each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from allocator.progress import Progress, silent
from allocator.tasks.batches import count, first, leaves, take
from allocator.tasks.positions import divergence, per_sample
from allocator.tasks.protocol import Batch
from profilers._blocks import blocks, inside
from profilers._deltas import Form, Table, deltas, positions
from profilers._plan import Plan, Target
from profilers._replay import Recording, record, replay
from profilers._shards import Piece, sharded

FLOAT = -1
"""In place of a target: the float network."""
PROBED = 8
"""Rows of the first batch on which every cut is tried before it is trusted."""

Key: TypeAlias = tuple[int, int, int, bool, int]
"""Target's place or FLOAT, first batch, last batch + 1, whether blocks may be remembered, classes of a position."""


@dataclass(frozen=True, kw_only=True)
class Single:
    """How single changes are run.

    Attributes:
        samples: the first so many rows of calibration data; None for all.
        cache_bytes: about what remembered outputs of one shard's batches may take; 0: nothing is remembered.
        top: classes whose logit deltas are handed back one by one (see `Form`); 0: divergences alone.
        sketches: random sums of the other classes.
        seed: of their signs.
    """

    samples: int | None
    cache_bytes: int
    top: int = 0
    sketches: int = 0
    seed: int = 0

    def run(self, plan: Plan, progress: Progress) -> Iterator[tuple[Key, Piece]]:
        """Every shard's key and piece; all targets of one run of batches, then the next.

        A piece of a target has ``sum`` and ``count`` [C, N] of the divergence of each sample, and with deltas ``delta``
        [C, P, F]. With deltas each run of batches begins with the float network's piece: ``top``, ``tail`` and
        ``counts`` of `Positions`.
        """
        batches = self._batches(plan)
        if not batches:
            raise UsageError("kl needs at least 2 calibration samples for a standard error, and got 0: give more")
        (found,) = sharded(plan, "kl layout", self, ["layout"], self.lay_out, silent)
        broken = int(found["broken"])
        if broken != FLOAT:
            warnings.warn(
                f"the network of {plan.workload.name} gives other logits when the blocks before "
                f"{plan.targets[broken].name} hand back what they returned before (a side effect, or randomness): kl "
                "runs it in full for every choice",
                stacklevel=2,
            )
        places = range(FLOAT if self.top else 0, len(plan.targets))
        runs = self._runs(batches, float(found["bytes"]))
        classes = int(found["classes"])
        keys = [(place, start, stop, broken == FLOAT, classes) for start, stop in runs for place in places]
        yield from zip(keys, sharded(plan, "kl", self, keys, self.measure, progress), strict=True)
        plan.memory.pop(self._memory, None)

    def lay_out(self, plan: Plan, key: str) -> Piece:
        """What the first batch's recording takes, the first target before which remembering goes wrong; and classes."""
        task, model, batches = plan.workload.task, plan.workload.model, self._batches(plan)
        with torch.no_grad():
            recording = self._recording(plan, batches[0], self.cache_bytes > 0)
            classes = [recording.logits.shape[-1]]
            classes += [task.logits(model, batch).shape[-1] for batch in batches[1:] if self.top]
            broken = self._first_broken(plan, recording) if self.cache_bytes else FLOAT
        if broken == FLOAT:
            plan.memory[self._memory] = (self.cache_bytes > 0, {0: recording})
        else:
            recording.keep([])
        found = {"bytes": recording.size, "broken": broken, "classes": max(classes)}
        return {name: torch.tensor(value) for name, value in found.items()}

    def _first_broken(self, plan: Plan, recording: Recording) -> int:
        """`_first_broken` of the batch's first rows."""
        if count(recording.batch) > PROBED:
            recording = self._recording(plan, take(recording.batch, 0, PROBED), True)
        return _first_broken(plan, recording)

    def measure(self, plan: Plan, key: Key) -> Piece:
        """One shard's piece."""
        place, start, stop, trusted, classes = key
        form = self.form(classes)
        with torch.no_grad():
            recordings = self._recordings(plan, start, stop, trusted and self.cache_bytes > 0)
            if place == FLOAT:
                parts = [positions(form, r.logits, plan.workload.task.mask(r.batch)) for r in recordings]
                tails = [torch.from_numpy(part.tail) for part in parts if part.tail is not None]
                return {
                    "top": torch.cat([torch.from_numpy(part.top) for part in parts]),
                    "counts": torch.cat([torch.from_numpy(part.counts) for part in parts]),
                    **({"tail": torch.cat(tails)} if tails else {}),
                }
            found = [
                self._changed(plan, plan.targets[place], k, recordings, form)
                for k in range(len(plan.targets[place].menu))
            ]
        return {name: torch.stack([piece[name] for piece in found]) for name in found[0]}

    def _changed(self, plan: Plan, target: Target, choice: int, recordings: Sequence[Recording], form: Form) -> Piece:
        """``sum`` and ``count`` [N], and with deltas ``delta`` [P, F], of one choice."""
        task, model = plan.workload.task, plan.workload.model
        with target.changed(choice) as moved:
            plain = [recording.logits for recording in recordings]
            changed = [replay(task, model, r, r.before(target.modules)) for r in recordings] if moved else plain
        cells: list[tuple[Tensor, Tensor]] = []
        kept: list[Tensor] = []
        for recording, logits in zip(recordings, changed, strict=True):
            mask = task.mask(recording.batch)
            same = logits is recording.logits
            values = torch.zeros(logits.shape[:-1]) if same else divergence(recording.logits, logits)
            cells.append(per_sample(values, mask))
            if self.top:
                kept.append(deltas(form, recording.logits, logits, mask, self._signs(plan, form)))
        found = {"sum": torch.cat([s for s, _ in cells]), "count": torch.cat([c for _, c in cells])}
        return {**found, "delta": torch.cat(kept)} if kept else found

    def form(self, classes: int) -> Form:
        """How deltas of so many classes are kept."""
        return Form(classes=classes, top=self.top, sketches=self.sketches, seed=self.seed)

    def _signs(self, plan: Plan, form: Form) -> Table | None:
        if form.whole:
            return None
        if form not in plan.memory:
            plan.memory[form] = form.signs()
        table: Table = plan.memory[form]
        return table

    @property
    def _memory(self) -> object:
        return ("recordings", self)

    def _recordings(self, plan: Plan, start: int, stop: int, remember: bool) -> list[Recording]:
        """Those of a run of batches; those of any other run are forgotten."""
        mode, kept = plan.memory.get(self._memory, (remember, {}))
        kept = {i: r for i, r in kept.items() if start <= i < stop} if mode == remember else {}
        for i in range(start, stop):
            if i not in kept:
                kept[i] = self._recording(plan, self._batches(plan)[i], remember)
        plan.memory[self._memory] = (remember, kept)
        return [kept[i] for i in range(start, stop)]

    def _recording(self, plan: Plan, batch: Batch, remember: bool) -> Recording:
        watched = list(blocks(plan.workload.model)) if remember else []
        layers = {module: None for target in plan.targets for module in target.modules}
        inner = dict.fromkeys(module for block in watched for module in inside(block, layers))
        task, model = plan.workload.task, plan.workload.model
        return record(task, model, batch, watched, [*layers], [*inner], self.cache_bytes)

    def _batches(self, plan: Plan) -> list[Batch]:
        key = ("batches", self.samples)
        if key not in plan.memory:
            plan.memory[key] = list(first(plan.workload.calibration, self.samples))
        found: list[Batch] = plan.memory[key]
        return found

    def _runs(self, batches: Sequence[Batch], taken: float) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of as many batches at a time as fit, one at least, if memory grows with the batch."""
        sizes = [sum(tensor.numel() for _, tensor in leaves(batch)) for batch in batches]
        start, held = 0, 0.0
        for i, size in enumerate(sizes):
            need = taken * size / sizes[0]
            if i > start and held + need > self.cache_bytes:
                yield start, i
                start, held = i, 0.0
            held += need
        yield start, len(batches)


def _first_broken(plan: Plan, recording: Recording) -> int:
    """FLOAT if every cut of this recording gives the recorded logits bit by bit; else the first target's that fails."""
    checked: set[frozenset[Module]] = set()
    for place, target in enumerate(plan.targets):
        remembered = recording.before(target.modules)
        cut = frozenset(block for block, _ in remembered)
        if cut in checked:
            continue
        checked.add(cut)
        if not _same(plan, recording, remembered):
            return place
    return FLOAT


def _same(plan: Plan, recording: Recording, remembered: Sequence[tuple[Module, object]]) -> bool:
    try:
        logits = replay(plan.workload.task, plan.workload.model, recording, remembered)
    except Exception:  # a block that was left out had more to do than return: whatever it breaks, the rest must run
        if not remembered:
            raise
        return False
    return torch.equal(logits, recording.logits)
