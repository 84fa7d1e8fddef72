"""What two choices made together do to the loss, measured for every pair: CLADO's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from profilers._changed import Measure, changed_losses, first_batches
from profilers._columns import means
from profilers._findings import Basis, Findings
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._shards import Piece, sharded

SMALL = 1e-12
"""Share of the largest |eigenvalue| below which one is rounding."""


@dataclass(frozen=True, kw_only=True)
class MeasuredPairs(Profiler):
    """``measured_pairs`` = L_a, the rise of the loss with choice a made alone, and interactions L_ab − L_a − L_b.

    In nats per position, signed. L_ab is measured with the choices a and b of two layers made together (CLADO, Deng et
    al. 2023, arXiv 2307.05657, whose matrix has 2 L_a on the diagonal). For every pair the sum of scores and
    interaction is the measured loss of the pair itself; three and more layers are a prediction. The interactions are
    written as a basis with one vector for each eigenvalue of the symmetric matrix of the pairs, which states the pairs
    exactly, as a choice has none with others of its own layer.

    The loss is the task's (target ``ce``), as in the paper, or with ``measure_by="kl"`` the divergence from the float
    network, which is far less noisy. Standard errors are over samples, of L_a; those of the interactions are not
    known, and like them grow with how noisy the loss is.

    Costs a forward pass over the samples for each choice and each pair of choices of different layers: (L·C)²/2
    passes, so this is for small networks or few choices.

    Attributes:
        samples: the first so many rows of calibration data; all for 0.
        measure_by: ce or kl.
        most: pairs beyond which it refuses.
    """

    name: ClassVar[str] = "measured_pairs"
    samples: int = 128
    measure_by: Measure = "ce"
    most: int = 20_000

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score and its interactions.

        Raises:
            UsageError: too many pairs; too few samples; a loss that is neither ce nor kl.
        """
        if self.measure_by not in ("ce", "kl"):
            raise UsageError(f"measured_pairs knows no measure_by={self.measure_by!r}: take ce or kl")
        sizes = [len(target.menu) for target in plan.targets]
        pairs = (sum(sizes) ** 2 - sum(size * size for size in sizes)) // 2
        if pairs > self.most:
            raise UsageError(
                f"measured_pairs would measure {pairs} pairs of choices, a forward pass each, and most={self.most}: "
                "give fewer choices or a larger most, or take the interactions of ggn, which cost one pass"
            )
        number = len(plan.targets)
        keys = [(a, b) for a in range(number) for b in range(a, number)]
        found = dict(zip(keys, sharded(plan, self.name, self, keys, self.rises, progress), strict=True))
        alone = [found[a, a] for a in range(number)]
        score = means(
            [piece["rise"].T for piece in alone],
            [piece["count"] for piece in alone],
            unit="nat",
            target=self.measure_by,
            per=plan.workload.task.per,
        )
        starts = [sum(sizes[:place]) for place in range(number)]
        table = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
        for (a, b), piece in found.items():
            if a != b:
                own, other = (torch.tensor(score.value[t], dtype=torch.float64) for t in (a, b))
                block = piece["pair"] - own[:, None] - other[None, :]
                block = torch.where(piece["idle"].bool(), torch.zeros_like(block), block)
                rows, columns = (slice(starts[t], starts[t] + sizes[t]) for t in (a, b))
                table[rows, columns], table[columns, rows] = block, block.T
        return Findings(scores={self.name: score}, bases=_basis(self.name, table, starts, sizes))

    def rises(self, plan: Plan, key: tuple[int, int]) -> Piece:
        """Of a target with itself: ``rise`` [choices, N] and ``count`` [N].

        Of two targets: ``pair`` [choices, choices], mean rises with both made, and ``idle``, where one changes nothing.
        """
        batches = first_batches(plan, self.samples or None)
        first, second = (plan.targets[place] for place in key)
        idle = [torch.tensor([t.idle(k) for k in range(len(t.menu))]) for t in (first, second)]
        if first is second:
            rows = [
                changed_losses(plan, batches, [] if same else [(first, k)], self.measure_by)
                for k, same in enumerate(idle[0].tolist())
            ]
            return {"rise": torch.stack([rise for rise, _ in rows]), "count": rows[0][1]}
        table = torch.zeros(len(first.menu), len(second.menu), dtype=torch.float64)
        none = idle[0][:, None] | idle[1][None, :]
        for i, j in (~none).nonzero().tolist():
            rise, count = changed_losses(plan, batches, [(first, i), (second, j)], self.measure_by)
            table[i, j] = rise.sum() / count.sum().clamp(min=1)
        return {"pair": table, "idle": none}


def _basis(score: str, table: Tensor, starts: list[int], sizes: list[int]) -> list[Basis]:
    """½ xᵀ table x as a basis: the blocks on its diagonal are 0, so that own squares cancel on every allocation."""
    values, vectors = torch.linalg.eigh(table)
    kept = values.abs() > SMALL * float(values.abs().max())
    if not bool(kept.any()):
        return []
    own = [vectors[start : start + size][:, kept] for start, size in zip(starts, sizes, strict=True)]
    return [Basis(score, values[kept], own)]
