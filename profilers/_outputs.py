"""What a layer answers to many changes of its weight, found in one wide run and kept for the next backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from profilers._patches import CONVOLUTIONS, groups_of
from profilers._project import Call, by_gradients_is_cheaper, multiplications, projections

ELEMENTS_AT_ONCE = 1 << 21
"""Output numbers of all changes made at a time: 8 MB."""
NARROW = 3
"""How many times longer a multiplication takes in many small products than in one wide convolution."""
COPIED = 8
"""Multiplications in the time that it takes to lay out one number of what a kernel sees."""
SUMMED = 4
"""Multiplications in the time that it takes to multiply one output with its cotangent and to add it up."""


@dataclass(eq=False)
class Outputs:
    """Outputs of layers whose weight is Δ, shared by all backward passes over one piece of data.

    They depend on the forward pass alone, so the first pass makes them and those that follow only take inner products.

    Attributes:
        passes: backward passes that will ask for them.
        held: bytes that they take.
    """

    passes: int = 1
    held: int = 0
    _kept: dict[Call, list[Tensor]] = field(default_factory=dict)

    def projections(self, call: Call, cotangent: Tensor, samples: int, changes: Tensor, room: int) -> Tensor:
        """u [samples, F, C] as `profilers._project.projections` gives it, whichever way is the quickest.

        ``room``: bytes that may be kept in addition; what does not fit is made again in the next pass.
        """
        narrow = by_gradients_is_cheaper(call, cotangent, samples, changes)
        if wide_is_cheaper(call, cotangent, samples, changes, self.passes) if narrow else wide(call, cotangent):
            return self._by_wide_runs(call, cotangent, samples, changes, room)
        return projections(call, cotangent, samples, changes)

    def _by_wide_runs(self, call: Call, cotangent: Tensor, samples: int, changes: Tensor, room: int) -> Tensor:
        parts: Iterable[Tensor] | None = self._kept.get(call)
        if parts is None:
            parts = _made(call, cotangent, samples, changes)
            size = len(changes) * cotangent.nbytes
            if self.passes > 1 and size <= room:
                self.held += size
                parts = self._kept[call] = list(parts)
        start, sums = 0, []
        for part in parts:
            sums.append(_summed(call, part, cotangent[start : start + len(part)]))
            start += len(part)
        rows = torch.cat(sums)
        return rows.reshape(samples, -1, *rows.shape[1:]).sum(1).transpose(1, 2)


def wide(call: Call, cotangent: Tensor) -> bool:
    """Whether one run of the layer can answer to all changes: their output features stand side by side."""
    module = call.module
    if isinstance(module, CONVOLUTIONS):
        return call.stock and groups_of(module) == 1 and cotangent.dim() == 2 + len(module.kernel_size)
    return call.stock and isinstance(module, nn.Linear)


def wide_is_cheaper(call: Call, cotangent: Tensor, samples: int, changes: Tensor, passes: int) -> bool:
    """Whether a convolution's outputs, made once for all passes, take less time than gradients in every pass.

    Depends on sizes alone, never on what was kept, so that a resumed run goes the same way.
    """
    if not isinstance(call.module, CONVOLUTIONS) or not wide(call, cotangent):
        return False
    forward, numbers, count = multiplications(call, cotangent) / samples, cotangent.numel() / samples, len(changes)
    gradients = forward + COPIED * forward / changes.shape[1] + count * changes[0].numel()
    return count * forward / NARROW / passes + SUMMED * count * numbers < gradients


def _made(call: Call, cotangent: Tensor, samples: int, changes: Tensor) -> Iterator[Tensor]:
    """layer(x; Δ) of some rows at a time: [rows, C, F, positions] of a convolution, [rows, positions, C, F] else."""
    stacked, rows = changes.flatten(0, 1), len(cotangent) // samples
    step = rows * max(1, ELEMENTS_AT_ONCE // (len(changes) * cotangent[:rows].numel()))
    shape = changes.shape[:2]
    for start in range(0, len(cotangent), step):
        output = call(stacked, call.inputs[start : start + step], biased=False)
        if isinstance(call.module, CONVOLUTIONS):
            yield output.reshape(len(output), *shape, -1)
        else:
            yield output.reshape(len(output), -1, *shape)


def _summed(call: Call, moved: Tensor, cotangent: Tensor) -> Tensor:
    """Inner products over positions [rows, C, F]."""
    if isinstance(call.module, CONVOLUTIONS):
        return (moved * cotangent.reshape(len(moved), 1, moved.shape[2], -1)).sum(-1)
    return (moved * cotangent.reshape(len(moved), -1, 1, moved.shape[3])).sum(1)
