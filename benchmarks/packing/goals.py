"""What packing is meant to reach, as data; and the rows that are measured for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.goal import Goal
from benchmarks.packing import memory, speed

SPEED = 0.5
ROWS: Mapping[str, Callable[[], dict[str, float]]] = {
    **{name: partial(speed.speeds, action) for name, action in speed.actions().items()},
    "memory": memory.memory,
    "embedding": memory.lookup,
    "small": speed.small,
}
WIDTHS: Mapping[str, tuple[str, ...]] = {
    width: tuple(name for name in speed.actions() if name.startswith(width))
    for width in ("float16", "bfloat16", *(f"{bits} bits" for bits in range(1, 9)))
}


def _speed(width: str, value: str, what: str) -> Goal:
    return Goal(row=width, network=width, value=value, least=SPEED, unit=" GB/s", what=f"{what}, slowest kind")


def _memory(value: str, what: str) -> Goal:
    said = f"forward of a packed model: {what} over one full weight and activations"
    return Goal(row="memory", network="3 × 67 MB", value=value, most=1.01, what=said)


GOALS: tuple[Goal, ...] = (
    *(_speed(width, "pack", "packing") for width in WIDTHS),
    *(_speed(width, "unpack", "unpacking") for width in WIDTHS),
    _memory("alive", "bytes of tensors"),
    _memory("resident", "resident bytes"),
)
