"""Choices of all layers in blocks whose changes fit into memory, so that each change is made once for all data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from profilers._plan import Plan, Target

MADE = 200
"""Multiplications in the time that it takes to make one number of a change from its stored form: an estimate. It need
only tell word pairs, over which a network runs in no time, from long texts, where that takes longest."""
PASSED = 2
"""Times the multiplications of a forward pass that a backward pass takes."""


@dataclass(frozen=True)
class Stretch:
    """The choices from ``start`` up to ``stop`` of target number ``place``."""

    place: int
    start: int
    stop: int


Block = tuple[Stretch, ...]
"""At most one stretch of each target, in the targets' order."""


def blocks(plan: Plan, samples: Sequence[int], passes: int, memory: int) -> list[Block]:
    """All choices, in order: in one block, or in as many as keep the changes of each within half of the memory.

    One block means that what does not fit into memory is made anew for every batch; several, that the network runs over
    the data once for each. Whichever takes less time, by sizes alone, so that a resumed run goes the same way.

    Args:
        plan: its targets with their menus.
        samples: in each batch.
        passes: backward passes over each batch.
        memory: bytes; the other half is for cotangents that wait (`profilers._outputs.Outputs`).
    """
    whole = tuple(Stretch(place, 0, len(target.menu)) for place, target in enumerate(plan.targets))
    if sum(target.unit.weight.nbytes * len(target.menu) for target in plan.targets) <= memory:
        return [whole]
    several = _cut(plan.targets, memory // 2)
    made = sum(target.layer.weights * len(target.menu) for target in plan.targets) * (len(samples) - 1)
    forward = sum(target.layer.macs for target in plan.targets) * sum(samples)
    return several if (len(several) - 1) * forward * (1 + PASSED * passes) < made * MADE else [whole]


def _cut(targets: Sequence[Target], room: int) -> list[Block]:
    done: list[Block] = []
    block: list[Stretch] = []
    left = room
    for place, target in enumerate(targets):
        start, size = 0, target.unit.weight.nbytes
        while start < len(target.menu):
            count = min(max(left, 0) // size, len(target.menu) - start)
            if not count and block:
                done.append(tuple(block))
                block, left = [], room
                continue
            stop = start + max(count, 1)
            block.append(Stretch(place, start, stop))
            left -= size * (stop - start)
            start = stop
    return [*done, tuple(block)]


def part(plan: Plan, block: Block) -> Plan:
    """The plan with the choices of one block alone; itself if that is all of them."""
    targets = tuple(_some(plan.targets[one.place], one.start, one.stop) for one in block)
    return plan if targets == plan.targets else replace(plan, targets=targets, memory={})


def _some(target: Target, start: int, stop: int) -> Target:
    if (start, stop) == (0, len(target.menu)):
        return target
    forms = {place - start: form for place, form in target.forms.items() if start <= place < stop}
    return replace(target, menu=target.menu[start:stop], others=len(target.menu) - (stop - start), forms=forms)
