"""The evaluation data, run with other weights: what earlier blocks returned is remembered where weights allow it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from allocator.tasks.batches import first
from allocator.tasks.protocol import Batch
from allocator.workload import Workload
from profilers._blocks import blocks
from profilers._replay import Recording, record, replay
from profilers._switch import switched


@dataclass(frozen=True, eq=False)
class Change:
    """A stored weight and what stands in for it; ``modules`` are those that use it, ``shift`` adds to their outputs."""

    weight: Tensor
    modules: tuple[Module, ...]
    other: Tensor
    shift: Tensor | None = None

    @property
    def idle(self) -> bool:
        """Whether not one bit changes."""
        return self.shift is None and torch.equal(self.other, self.weight)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The evaluation batches of a workload, and the float network's logits on them; calibration data is never read.

    To be used inside `untouched` and without gradients.

    Attributes:
        workload: the network, its data and its task.
        samples: use only the first so many rows; all for None.
        cache_bytes: memory for remembered outputs.
    """

    workload: Workload
    samples: int | None = None
    cache_bytes: int = 1 << 30

    def chunks(self, layers: Sequence[Module]) -> Iterator[tuple[int, list[Recording]]]:
        """(batches before, recordings of the next ones): as many batches at a time as fit the cache, at least one.

        Whether remembered outputs give the same bits is checked on the first batch, for every cut between layers; if
        not, the network is run in full, with a warning.

        Args:
            layers: the modules whose weights will change.
        """
        task, model = self.workload.task, self.workload.model
        kept = list(blocks(model)) if self.cache_bytes else []
        chunk: list[Recording] = []
        done = 0
        for batch in self.batches():
            recording = record(task, model, batch, kept, layers)
            if done == 0:
                kept = self._trusted(recording, kept, layers)
                recording.keep(kept)
            if chunk and sum(r.size for r in chunk) + recording.size > self.cache_bytes:
                yield done - len(chunk), chunk
                chunk = []
            chunk.append(recording)
            done += 1
        if not chunk:
            raise UsageError(f"the evaluation data of {self.workload.name} is empty: give at least one batch")
        yield done - len(chunk), chunk

    def batches(self) -> Iterator[Batch]:
        """The evaluation batches, cut after ``samples`` rows."""
        return first(self.workload.evaluation, self.samples)

    def logits(self, recordings: Sequence[Recording], changes: Sequence[Change]) -> list[Tensor]:
        """Logits of every recorded batch under the changes; where none changes a bit, the recorded ones."""
        real = [change for change in changes if not change.idle]
        if not real:
            return [recording.logits for recording in recordings]
        modules = [module for change in real for module in change.modules]
        task, model = self.workload.task, self.workload.model
        with changed(real):
            return [replay(task, model, r, r.before(modules)) for r in recordings]

    def _trusted(self, recording: Recording, kept: list[Module], layers: Sequence[Module]) -> list[Module]:
        """The blocks, if replaying with every cut gives the recorded logits bit by bit; else none, with a warning."""
        task, model = self.workload.task, self.workload.model
        cuts = {len(found): found for layer in layers if (found := recording.before([layer]))}
        for remembered in cuts.values():
            try:
                same = torch.equal(replay(task, model, recording, remembered), recording.logits)
            except Exception:  # a block that was left out had more to do than return; run in full, it may work
                same = False
            if not same:
                warnings.warn(
                    f"the network of {self.workload.name} gives other logits when its first blocks hand back what they "
                    "returned before (a side effect, or randomness): it is run in full for every measurement",
                    stacklevel=2,
                )
                return []
        return kept


@contextmanager
def changed(changes: Sequence[Change]) -> Iterator[None]:
    """The weights replaced, and put back bit by bit."""
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(switched(change.weight, change.other, change.shift, change.modules))
        yield
