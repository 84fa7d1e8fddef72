"""Gigabytes of float32 weights that are packed and unpacked in a second of CPU time, on one thread."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from allocator.actions import Action, Keep, Layer, Quantize
from allocator.applier import pack, unpack
from allocator.applier.kinds import kind_of
from allocator.applier.weight import Weight
from allocator.engine import WITHOUT

SHAPE = (1024, 4096)
"""16.8 MB: larger than the caches, and small enough that torch hands the same memory out again."""
SHARING: Mapping[str, tuple[str, int | None]] = {
    "channel": ("channel", None),
    "groups of 32": ("group", 32),
    "tensor": ("tensor", None),
}
SMALL = (16, 16, 3, 3)
REPEATS = 7

_Made = TypeVar("_Made")


def actions() -> Mapping[str, Action]:
    """Every width, scheme and granularity, and the halves."""
    found: dict[str, Action] = {dtype: Keep(dtype=dtype) for dtype in ("float16", "bfloat16")}
    for scheme, (sharing, (granularity, size)), bits in itertools.product(
        ("symmetric", "asymmetric"), SHARING.items(), range(1, 9)
    ):
        action = Quantize(bits=bits, scheme=scheme, granularity=granularity, group_size=size)
        found[f"{bits} bits {scheme} {sharing}"] = action
    return found


def speeds(action: Action) -> dict[str, float]:
    """GB/s of float32: pack and unpack, each first call, torch's own way in the same run, and numpy's where it has one.

    `unpack_large`: a matrix of 67 MB, for which the system hands out fresh pages at every call.
    """
    torch.set_num_threads(1)
    weight = Weight(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)), Layer("linear", SHAPE))
    kind, layer = kind_of(action), weight.layer
    found: dict[str, float] = {}
    stored, found["pack"], found["pack_first"] = _timed(lambda: kind.store(weight, action))
    restored, found["unpack"], found["unpack_first"] = _timed(lambda: kind.restore(stored, action, layer))
    if isinstance(action, Quantize):
        with _torch_alone():
            other, found["pack_torch"], _ = _timed(lambda: kind.store(weight, action))
            same, found["unpack_torch"], _ = _timed(lambda: kind.restore(stored, action, layer))
        assert torch.equal(stored, other), "both ways give the same bytes"
        assert torch.equal(restored, same), "both ways give the same weights"
    peer = _numpy(stored, action)
    if peer is not None:
        numbers, found["unpack_numpy"], _ = _timed(peer)
        assert np.array_equal(numbers, restored.numpy()), "numpy gives the same weights"
    large = Layer("linear", (4 * SHAPE[0], SHAPE[1]))
    if isinstance(action, Quantize) and action == Quantize(bits=action.bits):
        everything = kind.store(Weight(weight.matrix.repeat(4, 1), large), action)
        _, speed, _ = _timed(lambda: kind.restore(everything, action, large))
        found["unpack_large"] = 4 * speed
    return found


def small() -> dict[str, float]:
    """Microseconds of CPU time to pack and unpack a small layer at 3 bits, in the mean of a hundred calls."""
    torch.set_num_threads(1)
    layer, action = Layer("conv2d", SMALL), Quantize(bits=3)
    weight = torch.randn(SMALL, generator=torch.Generator().manual_seed(0))
    stored = pack(weight, action, layer)
    found = {}
    calls = {"pack_us": lambda: pack(weight, action, layer), "unpack_us": lambda: unpack(stored, action, layer)}
    for name, call in calls.items():
        start = time.process_time()
        for _ in range(100):
            call()
        found[name] = 1e4 * (time.process_time() - start)
    return found


def _numpy(stored: Tensor, action: Action) -> Callable[[], np.ndarray] | None:
    """What numpy itself can unpack: halves, and single bits."""
    raw = stored.numpy()
    if action == Keep(dtype="float16"):
        return lambda: raw.view(np.float16).reshape(SHAPE).astype(np.float32)
    if action != Quantize(bits=1):
        return None
    scales = raw[SHAPE[0] * SHAPE[1] // 8 :].view(np.float16).astype(np.float32)[:, None]

    def unpacked() -> np.ndarray:
        signs = np.unpackbits(raw, count=SHAPE[0] * SHAPE[1], bitorder="little").reshape(SHAPE).astype(np.float32)
        signs *= 2
        signs -= 1
        signs *= scales
        return signs

    return unpacked


def _timed(call: Callable[[], _Made]) -> tuple[_Made, float, float]:
    """What it gives, GB/s in the median after the first call, and GB/s of the first."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        made = call()
        seconds.append(time.process_time() - start)
        if len(seconds) <= REPEATS:
            del made  # as after a forward pass
    size = 4 * SHAPE[0] * SHAPE[1] / 1e9
    return made, size / median(seconds[1:]), size / seconds[0]


@contextmanager
def _torch_alone() -> Iterator[None]:
    before = os.environ.get(WITHOUT)
    os.environ[WITHOUT] = "numpy"
    try:
        yield
    finally:
        del os.environ[WITHOUT]
        if before is not None:
            os.environ[WITHOUT] = before
