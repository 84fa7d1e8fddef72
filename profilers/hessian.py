"""The curvature of the true loss in the direction of each choice: one Hessian–vector product per choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allocator.progress import Progress
from allocator.tasks.measurement import Measured, ratio
from profilers._backward import Changes
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._hvp import build, check, differentiable
from profilers._pieces import pieces
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._score import Score
from profilers._shards import Piece, sharded


@dataclass(frozen=True, kw_only=True)
class Hessian(Profiler):
    """``hessian`` = ½ ΔᵀHΔ in nats per position: the second-order term of the mean cross entropy, with the real Δ.

    H = ∂² mean loss / ∂W² over the labels of the calibration data (LeCun, Denker, Solla 1989, Optimal brain damage;
    Pearlmutter 1994 for the products). Signed: unlike the Gauss–Newton quadratic it may be negative, and often is for
    single layers of a network that was not trained to the end. The first-order term is left out: on a trained network
    it is the noise of the sample (see the profiler ``first_order`` where it is wanted).

    Target ``ce``. Standard errors are over ``pieces`` of the calibration data, see `profilers._pieces`: honest for
    independent samples, since a product knows only the sum over its batch. Attention runs on the kernel that can be
    differentiated twice.

    Costs 1.6 FB for the graphs and 0.6 to 0.8 FB per layer and choice (`Ggn` costs 3 for all).

    Attributes:
        samples: use only the first so many rows of calibration data.
        pieces: at least so many, if there are as many samples.
        cache_bytes: memory for the changes of weights that are kept between pieces.
    """

    name: ClassVar[str] = "hessian"
    samples: int | None = None
    pieces: int = 8
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``hessian``."""
        batches = pieces(plan, self.name, self.samples, self.pieces)
        check(plan, batches[0], "hessian")
        make_forms(plan, progress)
        found = list(sharded(plan, self.name, self, range(len(batches)), self.curvatures, progress))
        counts = torch.cat([piece["positions"] for piece in found])
        cells: list[list[Measured]] = []
        for place in range(len(plan.targets)):
            columns = torch.stack([piece[f"curvature/{place}"] for piece in found], 1)
            cells.append([ratio(column, counts) for column in columns])
        score = Score(
            [[cell.value for cell in row] for row in cells],
            [[cell.stderr for cell in row] for row in cells],
            unit="nat",
            target="ce",
            per=plan.workload.task.per,
        )
        return Findings(scores={"hessian": score})

    def curvatures(self, plan: Plan, place: int) -> Piece:
        """Of one piece of data: ``positions`` [1] and per target ½ ΔᵀHΔ [choices], summed over its positions."""
        batch = pieces(plan, self.name, self.samples, self.pieces)[place]
        changes: Changes = plan.memory.setdefault((Changes, self.cache_bytes), Changes(self.cache_bytes))
        found: dict[str, Tensor] = {}
        deltas = [changes.of(target) for target in plan.targets]
        with differentiable(plan, plan.targets):
            graph = build(plan, plan.targets, batch, "hessian")
            for own, target in enumerate(plan.targets):
                row = torch.zeros(len(target.menu), dtype=torch.float64)
                for column, delta in zip(changes.places(target), deltas[own], strict=True):
                    curved = graph.product({own: delta}, [own])[0]
                    row[column] = (curved.double() * delta).sum() / 2
                found[f"curvature/{own}"] = row
        return {"positions": torch.tensor([graph.positions], dtype=torch.float64), **found}
