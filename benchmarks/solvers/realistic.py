"""Bit-widths (2, 3, 4, 5, 6, 8, 16) for the tensors of real networks: true shapes, modelled losses.

One to three budgets, all tight.

Loss of tensor g with w_g weights at b bits: s_g·(w_g/w̄)·4^−b·exp(¼N), s_g = exp(N) the tensor's sensitivity, N
normal: what rounding theory says, in the spread that measured layers show. `noise` adds ±2 % of the median
4-bit loss, so that losses near zero take either sign and some tensors prefer fewer bits.

Resources:
- bytes: w·bits/8, truly packed, so within-group differences share a large common divisor. Without `divisor` each
  choice adds a float16 scale and minimum per row below 16 bits and a header of 40 to 103 bytes: the divisor is 1.
- latency_us (float): the larger of reading the bytes at 100 GB/s and computing, plus unpacking (dear for 3, 5
  and 6 bits) and 2 µs, times exp(.3N) per tensor and exp(.15N) per choice. A model, not a measurement.
- energy_nj (integers): picojoules per product by width, and 80 per byte read, times the like. A model as well.

Several budgets: the totals of the allocation that one positive price per resource chooses where bytes stand at
45 % of their range, less 1/1000 of each range: so every row has a price at the optimum of the relaxation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator import Problem
from allocator.statement import Basis, Pairs, Resource
from benchmarks.solvers import shapes
from benchmarks.solvers.case import Case, Draw
from benchmarks.solvers.shapes import Tensor

BITS = (2, 3, 4, 5, 6, 8, 16)
SHARE = 0.45
STEP = 1e-3
SEED = 3  # the first under which every row has a price in every network
NETWORKS = {
    "resnet50": (shapes.resnet50, 54, "ResNet-50"),
    "llama8b": (shapes.llama8b, 226, "Llama 3 8B"),
    "mixtral": (shapes.mixtral, 898, "Mixtral 8x7B"),
    "moe61k": (shapes.many_experts, 61_069, "a mixture of 61,069 tensors"),
}
UNITS = {"bytes": "byte", "latency_us": "us", "energy_nj": "nJ"}
UNPACK = {2: 0.1, 3: 0.4, 4: 0.05, 5: 0.45, 6: 0.35, 8: 0.0, 16: 0.0}  # picoseconds a weight
PRODUCT = {2: 0.1, 3: 0.15, 4: 0.2, 5: 0.3, 6: 0.35, 8: 0.5, 16: 1.5}  # picojoules
RANK = 8


def network(
    seed: int,
    name: str,
    noise: bool = True,
    divisor: bool = True,
    budgets: int = 1,
    interaction: str | None = None,
    bits: Sequence[int] = BITS,
) -> Problem:
    """One network as a problem: a group per tensor, a choice per width.

    Args:
        seed: of all that is drawn.
        name: a key of `NETWORKS`.
        noise: whether losses carry signed noise.
        divisor: whether the byte counts share a divisor.
        budgets: 1 (bytes), 2 (and latency) or 3 (and energy).
        interaction: None, "basis" (rank 8 over all groups) or "pairs" (neighbours in the model's order).
        bits: widths to choose from; latency and energy know those of `BITS`.
    """
    tensors = NETWORKS[name][0]()
    draw = Draw(seed, len(tensors))
    weights = np.array([t.weights for t in tensors], np.int64)
    loss = losses(draw, weights, bits, noise)
    costs: dict[str, NDArray[Any]] = {"bytes": _bytes(draw, tensors, bits, divisor)}
    if budgets > 1:
        costs["latency_us"] = _latency(draw, tensors, bits, costs["bytes"])
    if budgets > 2:
        costs["energy_nj"] = _energy(draw, tensors, bits, costs["bytes"])
    parts: dict[str, Any] = {}
    if interaction is not None:
        loss, parts["interactions"] = _interaction(draw, loss, interaction)
    return Problem.from_arrays(
        {"modelled": loss},
        costs,
        budgets=limits(loss, costs),
        group_names=[t.name for t in tensors],
        choice_names=[f"int{b}" if b < 16 else "float16" for b in bits],
        weights=weights,
        resources={r: Resource(unit=UNITS[r]) for r in costs},
        **parts,
    )


def slices(seed: int, groups: int, noise: bool = False, divisor: bool = True) -> Problem:
    """Equal treatment of `groups` slices of 4,096 to 262,144 weights: eight widths, bytes only."""
    draw, bits = Draw(seed, groups), (2, 3, 4, 5, 6, 7, 8, 16)
    weights = 4096 * draw.integers(1, 64, groups)
    size = weights[:, None] * np.array(bits) // 8
    if not divisor:
        size += 4 * (weights[:, None] // 4096) * (np.array(bits) < 16) + draw.integers(40, 103, *size.shape)
    loss = losses(draw, weights, bits, noise)
    return Problem.from_arrays({"modelled": loss}, {"bytes": size}, budgets=limits(loss, {"bytes": size}))


def losses(draw: Draw, weights: NDArray[np.int64], bits: Sequence[int], noise: bool) -> NDArray[np.float64]:
    """Modelled loss of each choice [G, K]; see the head of this file."""
    shape = (len(weights), len(bits))
    sensitivity = np.exp(draw.normal(shape[0])) * (weights / weights.mean())
    loss = np.exp(0.25 * draw.normal(*shape))
    loss *= 4.0 ** -np.array(bits, np.float64)
    loss *= sensitivity[:, None]
    if noise:
        loss += 0.02 * float(np.median(loss[:, list(bits).index(4)])) * draw.normal(*shape)
    return loss


def limits(loss: NDArray[np.float64], costs: Mapping[str, NDArray[Any]]) -> dict[str, int | float]:
    """Budgets that bind: one at 45 % of its range, several as the head of this file says; floored where integer."""
    low = {r: float(c.min(axis=1).sum()) for r, c in costs.items()}
    span = {r: float(c.max(axis=1).sum()) - low[r] for r, c in costs.items()}
    wanted = {"bytes": low["bytes"] + SHARE * span["bytes"]}
    if len(costs) > 1:
        wanted = {r: total - STEP * span[r] for r, total in _priced(loss, costs, span, wanted["bytes"]).items()}
    return {r: int(w) if costs[r].dtype == np.int64 else w for r, w in wanted.items()}


def _priced(
    loss: NDArray[np.float64], costs: Mapping[str, NDArray[Any]], span: Mapping[str, float], most: float
) -> dict[str, float]:
    """Totals of the allocation at the least common price per share of each range that keeps bytes below `most`."""
    joint = sum(c / span[r] for r, c in costs.items())
    below, above = 0.0, 1.0
    totals: dict[str, float] = {}
    rows = np.arange(len(loss))
    for _ in range(80):
        price = (below + above) / 2 if below else above
        taken = (loss + price * joint).argmin(axis=1)
        if float(costs["bytes"][rows, taken].sum()) <= most:
            above, totals = price, {r: float(c[rows, taken].sum()) for r, c in costs.items()}
            below = below or price / 2**20
        else:
            below = price
            above = above if totals else 2 * price
    return totals


def _bytes(draw: Draw, tensors: Sequence[Tensor], bits: Sequence[int], divisor: bool) -> NDArray[np.int64]:
    size: NDArray[np.int64] = np.array([t.weights for t in tensors], np.int64)[:, None] * np.array(bits) // 8
    if not divisor:
        size += 4 * np.array([t.rows for t in tensors], np.int64)[:, None] * (np.array(bits) < 16)
        size += draw.integers(40, 103, *size.shape)
    return size


def _latency(
    draw: Draw, tensors: Sequence[Tensor], bits: Sequence[int], size: NDArray[np.int64]
) -> NDArray[np.float64]:
    weights = np.array([t.weights for t in tensors], np.float64)[:, None]
    products = np.array([t.weights * t.uses for t in tensors])[:, None]
    busy = np.maximum(size / 1e5, products / np.where(np.array(bits) <= 8, 2e6, 5e5))
    unpacking = weights * np.array([UNPACK[b] for b in bits]) / 1e6
    latency: NDArray[np.float64] = np.round((busy + unpacking + 2.0) * _spread(draw, size.shape), 3)
    return latency


def _energy(draw: Draw, tensors: Sequence[Tensor], bits: Sequence[int], size: NDArray[np.int64]) -> NDArray[np.int64]:
    products = np.array([t.weights * t.uses for t in tensors])[:, None]
    picojoules = products * np.array([PRODUCT[b] for b in bits]) + 80.0 * size
    energy: NDArray[np.float64] = np.rint(picojoules / 1e3 * _spread(draw, size.shape))
    return energy.astype(np.int64)


def _spread(draw: Draw, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What no model of a machine foresees: a factor per tensor, and one per tensor and width."""
    return np.exp(0.3 * draw.normal(shape[0], 1) + 0.15 * draw.normal(*shape))


def _interaction(
    draw: Draw, loss: NDArray[np.float64], kind: str
) -> tuple[NDArray[np.float64], tuple[Basis | Pairs, ...]]:
    """The losses with what the interaction adds to a choice by itself, and the interaction.

    Errors along the leading curvatures shrink like √loss; half of each choice's loss is theirs in the basis, and
    a pair is worth up to 30 % of √(l_a·l_b), of either sign.
    """
    groups, choices = loss.shape
    size = np.sqrt(np.abs(loss))
    if kind == "basis":
        curvature = 1.0 / np.arange(1, RANK + 1)
        vectors = draw.normal(groups * choices, RANK) * size.reshape(-1, 1)
        vectors /= np.sqrt(curvature.sum())
        own = 0.5 * (vectors**2 @ curvature).reshape(groups, choices)
        return loss + own, (Basis("modelled", curvature, vectors),)
    row = np.arange(groups * choices).reshape(groups, choices)
    a = np.repeat(row[:-1], choices, axis=1).ravel()
    b = np.tile(row[1:], (1, choices)).ravel()
    sign = np.repeat(2 * draw.uniform(groups - 1) - 1, choices * choices)
    value = 0.3 * sign * size.ravel()[a] * size.ravel()[b]
    return loss, (Pairs("modelled", np.stack([a, b], axis=1).astype(np.int64), value),)


def cases() -> Iterator[Case]:
    """Every network plain, with noise and without divisor; two and three budgets; interactions; slices."""
    for name, (_, groups, words) in NETWORKS.items():
        small = name == "resnet50"
        kinds: dict[str, tuple[str, dict[str, Any]]] = {
            "": ("smooth losses", {"noise": False}),
            "-noise": ("signed noise", {}),
            "-nodivisor": ("signed noise, sizes without common divisor", {"divisor": False}),
            "-2": ("signed noise, bytes and latency", {"budgets": 2}),
            "-3": ("signed noise, bytes, latency and energy", {"budgets": 3}),
        }
        if small:
            kinds["-basis"] = ("errors of all layers interact, rank 8", {"interaction": "basis"})
            few = {"interaction": "basis", "bits": (2, 3, 4, 6, 8)}
            kinds["-basis5"] = ("errors of all layers interact, rank 8, five widths only", few)
            kinds["-pairs"] = ("neighbouring layers interact", {"interaction": "pairs"})
        for suffix, (meaning, options) in kinds.items():
            quick = small or (name == "llama8b" and not suffix)
            make = partial(network, name=name, **options)
            yield Case(f"{name}{suffix}", SEED, groups, f"{words}; {meaning}", make, quick)
    for name, groups in (("slices1k", 1_000), ("slices1m", 1_000_000)):
        for suffix, options in (("", {}), ("-noise", {"noise": True}), ("-nodivisor", {"divisor": False})):
            meaning = f"{groups} slices of tensors, eight widths; {suffix.removeprefix('-') or 'smooth'}"
            make = partial(slices, groups=groups, **options)
            yield Case(f"{name}{suffix}", SEED, groups, meaning, make, groups == 1_000 and not suffix)
