"""What a layer answers to many changes of its weight, found in one wide run for all backward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from profilers._patches import CONVOLUTIONS, groups_of
from profilers._project import Call, by_gradients_is_cheaper, multiplications, projections

ELEMENTS_AT_ONCE = 1 << 20
"""Output numbers of all changes made at a time: 4 MB."""
PRODUCTS_AT_ONCE = 1 << 18
"""Products of outputs and cotangents held at a time: 1 MB."""
NARROW = 3
"""How many times longer a multiplication takes in many small products than in one wide convolution."""
COPIED = 8
"""Multiplications in the time that it takes to lay out one number of what a kernel sees."""
SUMMED = 4
"""Multiplications in the time that it takes to multiply one output with its cotangent and to add it up."""


Receiver: TypeAlias = Callable[[Tensor], None]
"""Takes u [samples, F, C] of one call and pass, see `profilers._project.projections`."""


@dataclass(eq=False)
class Outputs:
    """Runs of layers whose weight is Δ, shared by all backward passes over one piece of data.

    They depend on the forward pass alone. So the cotangents of the first passes wait for the last, which makes the
    outputs, some rows at a time, and takes the inner products of all.

    Attributes:
        passes: backward passes in all.
        left: how many will follow the one that is under way.
        held: bytes of the cotangents that wait.
    """

    passes: int = 1
    left: int = 0
    held: int = 0
    _waiting: dict[Call, list[tuple[Tensor, Receiver]]] = field(default_factory=dict)

    def project(
        self, call: Call, cotangent: Tensor, samples: int, changes: Tensor, receive: Receiver, *, room: int
    ) -> None:
        """Hand over u, in the last pass at the latest, found in whichever way is the quickest.

        ``room``: bytes that may wait in addition; without it the outputs are made in every pass.
        """
        narrow = by_gradients_is_cheaper(call, cotangent, samples, changes)
        if not (wide_is_cheaper(call, cotangent, samples, changes, self.passes) if narrow else wide(call, cotangent)):
            receive(projections(call, cotangent, samples, changes))
            return
        together = [*self._waiting.pop(call, []), (cotangent, receive)]
        if self.left and cotangent.nbytes <= room:
            self.held += cotangent.nbytes
            self._waiting[call] = together
            return
        found: list[list[Tensor]] = [[] for _ in together]
        start = 0
        for part in _made(call, cotangent, samples, changes):
            own = slice(start, start + len(part))
            for sums, (dy, _) in zip(found, together, strict=True):
                sums += _summed(call, part, dy[own])
            start = own.stop
        for sums, (_, wanted) in zip(found, together, strict=True):
            rows = torch.cat(sums)
            wanted(rows.reshape(samples, -1, *rows.shape[1:]).sum(1).transpose(1, 2))


def wide(call: Call, cotangent: Tensor) -> bool:
    """Whether one run of the layer can answer to all changes: their output features stand side by side."""
    module = call.module
    if isinstance(module, CONVOLUTIONS):
        return call.stock and groups_of(module) == 1 and cotangent.dim() == 2 + len(module.kernel_size)
    return call.stock and isinstance(module, nn.Linear)


def wide_is_cheaper(call: Call, cotangent: Tensor, samples: int, changes: Tensor, passes: int) -> bool:
    """Whether a convolution's outputs, made once for all passes, take less time than gradients in every pass.

    Depends on sizes alone, never on what is held, so that a resumed run goes the same way.
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


def _summed(call: Call, moved: Tensor, cotangent: Tensor) -> Iterator[Tensor]:
    """Inner products over positions [rows, C, F], some rows at a time, so that products stay in a processor's cache."""
    convolves = isinstance(call.module, CONVOLUTIONS)
    shape = (1, moved.shape[2], -1) if convolves else (-1, 1, moved.shape[3])
    dys = cotangent.reshape(len(moved), *shape)
    step = max(1, PRODUCTS_AT_ONCE * len(moved) // moved.numel())
    for own, dy in zip(torch.split(moved, step), torch.split(dys, step), strict=True):
        yield (own * dy).sum(-1 if convolves else 1)
