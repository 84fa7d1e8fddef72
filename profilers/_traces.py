"""Traces of the diagonal blocks of a curvature matrix, one layer at a time, from random signs in that layer alone.

A probe that fills all layers at once gives all traces in one product, but also the noise of all blocks between layers;
at equal accuracy the probes of single layers were measured to be 2 to 8.5 times cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.measurement import ratio
from profilers._hutchpp import hutchpp
from profilers._hvp import Graph, Matrix, build, check, differentiable
from profilers._parts import batch_seed
from profilers._pieces import pieces
from profilers._plan import Plan
from profilers._shards import Piece, sharded

ROUND = 16
"""Probes of a layer between two looks at the standard error; graphs are built anew for each round."""
SMALL = 1000
"""Weights up to which Hutch++ is taken by itself: there it was measured 2 to 5 times as accurate, above no better."""

Method = Literal["auto", "hutchinson", "hutch++"]
T = TypeVar("T")


@dataclass(frozen=True)
class Trace:
    """Of one layer's block, per position.

    Attributes:
        value: the trace.
        stderr: over pieces of data and probes together.
        probing: the part of it that comes from the probes; 0 where all directions were taken.
        products: matrix–vector products over all the data.
        method: ``hutchinson`` or ``hutch++``.
    """

    value: float
    stderr: float
    probing: float
    products: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Traces:
    """How traces are estimated; see `profilers.hessian_trace.HessianTrace` for the options."""

    name: str
    matrix: Matrix
    method: Method
    probes: int
    tolerance: float
    seed: int
    samples: int | None
    pieces: int

    def run(self, plan: Plan, progress: Progress) -> list[Trace]:
        """The trace of every target's block."""
        if self.method not in ("auto", "hutchinson", "hutch++"):
            raise UsageError(f"{self.name} has no method {self.method!r}: take auto, hutchinson or hutch++")
        if self.probes < 6 or not self.tolerance >= 0:
            raise UsageError(
                f"{self.name} needs probes ≥ 6 and tolerance ≥ 0, got probes={self.probes} and "
                f"tolerance={self.tolerance}"
            )
        check(plan, pieces(plan, self.name, self.samples, self.pieces)[0], self.matrix)
        small = [place for place in range(len(plan.targets)) if self._small(plan, place)]
        found: dict[int, Trace] = {}
        done = sharded(plan, f"{self.name}, hutch++", self, small, self.split, progress)
        for place, piece in zip(small, done, strict=True):
            value, spread = ratio(piece["parts"], piece["positions"]).value, _spread(piece["parts"], piece["positions"])
            probing = float(piece["error"]) / float(piece["positions"].sum())
            found[place] = Trace(value, math.hypot(spread, probing), probing, int(piece["products"]), "hutch++")
        found.update(self._probed(plan, [p for p in range(len(plan.targets)) if p not in found], progress))
        return [found[place] for place in range(len(plan.targets))]

    def _small(self, plan: Plan, place: int) -> bool:
        size = plan.targets[place].unit.weight.numel()
        return self.method == "hutch++" or (self.method == "auto" and size <= SMALL)

    def _probed(self, plan: Plan, places: Sequence[int], progress: Progress) -> dict[int, Trace]:
        """Round after round of probes, in each the layers whose trace is not good enough yet."""
        seen: dict[int, list[Tensor]] = {place: [] for place in places}
        found: dict[int, Trace] = {}
        turn = 0
        while len(found) < len(seen):
            keys = [(place, turn) for place in seen if place not in found]
            stage = f"{self.name}, round {turn + 1}"
            for (place, _), piece in zip(keys, sharded(plan, stage, self, keys, self.probed, progress), strict=True):
                seen[place].append(piece["quadratics"])
                trace = _hutchinson(torch.cat(seen[place], 1), piece["positions"])
                if trace.probing <= self.tolerance * abs(trace.value) or trace.products >= self.probes:
                    found[place] = trace
            turn += 1
        return found

    def probed(self, plan: Plan, key: tuple[int, int]) -> Piece:
        """One round of one layer: ``quadratics`` vᵀAv [pieces, probes], sums over ``positions`` [pieces]."""
        place, turn = key
        weight = plan.targets[place].unit.weight
        probes = range(turn * ROUND, min((turn + 1) * ROUND, self.probes))

        def quadratics(graph: Graph) -> list[float]:
            row = []
            for probe in probes:
                generator = torch.Generator().manual_seed(batch_seed(batch_seed(self.seed, place), probe))
                signs = torch.empty(weight.shape).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(weight.device)
                row.append(float((graph.product({0: signs}, [0])[0] * signs).sum(dtype=torch.float64)))
            return row

        rows, positions = self._each(plan, place, quadratics)
        return {"quadratics": torch.tensor(rows, dtype=torch.float64), "positions": positions}

    def split(self, plan: Plan, place: int) -> Piece:
        """The whole of one small layer by Hutch++: its `Split`, sums over ``positions`` [pieces]."""
        weight = plan.targets[place].unit.weight
        counts: list[Tensor] = []

        def apply(vectors: Tensor) -> Tensor:
            def multiply(graph: Graph) -> Tensor:
                rows = [graph.product({0: row.to(weight).view_as(weight)}, [0])[0].flatten() for row in vectors]
                return torch.stack(rows).double().cpu()

            found, positions = self._each(plan, place, multiply)
            counts[:] = [positions]
            return torch.stack(found)

        generator = torch.Generator().manual_seed(batch_seed(self.seed, place))
        made = hutchpp(apply, weight.numel(), self.probes, self.tolerance, generator)
        numbers = {"error": torch.tensor([made.error], dtype=torch.float64), "products": torch.tensor([made.products])}
        return {"parts": made.parts, "positions": counts[0], **numbers}

    def _each(self, plan: Plan, place: int, use: Callable[[Graph], T]) -> tuple[list[T], Tensor]:
        """What the graph of every piece is used for, and the pieces' positions."""
        target, found, positions = plan.targets[place], [], []
        for piece in pieces(plan, self.name, self.samples, self.pieces):
            with differentiable(plan, [target]):
                graph = build(plan, [target], piece, self.matrix)
                found.append(use(graph))
            positions.append(graph.positions)
        return found, torch.tensor(positions, dtype=torch.float64)


def _hutchinson(quadratics: Tensor, positions: Tensor) -> Trace:
    """From vᵀAv [pieces, probes]; the two errors are added as if unrelated, which counts what both share twice."""
    mass, count = float(positions.sum()), quadratics.shape[1]
    probing = float(quadratics.sum(0).std()) / mass / math.sqrt(count)
    parts = quadratics.mean(1)
    stderr = math.hypot(probing, _spread(parts, positions))
    return Trace(float(parts.sum()) / mass, stderr, probing, count, "hutchinson")


def _spread(parts: Tensor, positions: Tensor) -> float:
    return ratio(parts, positions).stderr
