"""How far an expansion of the loss lies from the loss itself, measured for every choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from allocator import registry
from allocator.errors import UsageError
from allocator.progress import Progress, silent
from profilers._changed import Measure, changed_losses, cut, first_batches
from profilers._findings import Findings
from profilers._parts import Parts
from profilers._plan import Plan
from profilers._run import Profiler, Statistic
from profilers._score import Score
from profilers._shards import Piece, sharded


@dataclass(frozen=True, kw_only=True)
class Remainder(Profiler):
    """Score and name stay those of the expansion ``of``; its remainder becomes |measured − predicted| ≥ 0, in nats.

    Measured is the rise of the loss with this one choice made, on the first ``samples`` rows of calibration data;
    predicted is the expansion on these very rows, so that the noise of the draw cancels and what is left is the
    order that the expansion lacks: U of LLC (arXiv 2412.06868, equations 5 and 6). For an expansion whose target is
    ``ce`` the loss is the task's, for ``kl`` the divergence from the float network. A choice that leaves the weight as
    it is has remainder 0.

    Sums of remainders over layers are a heuristic and no bound on that of a whole allocation: the format's score rows
    with ``include_remainder`` use them, a claim to be lossless needs more.

    Costs the expansion twice (once on the few rows) and a forward pass over these rows for each choice: L·C/3 FB of
    them.

    Attributes:
        of: registry name of the expansion, such as first_order, hessian or ggn; with its default options.
        samples: rows to measure on; all for 0.
    """

    name: ClassVar[str] = "remainder"
    of: str = "first_order"
    samples: int = 64

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The expansion's findings, its main score with remainders.

        Raises:
            UsageError: ``of`` is no profiler with a score of its own name that stands for a loss; too few samples.
        """
        expansion = registry.make("profilers", self.of, {})
        if isinstance(expansion, Remainder) or not isinstance(expansion, Statistic):
            raise UsageError(f"of={self.of!r} of remainder: give a profiler that expands the loss, such as first_order")
        found = expansion.measure(plan, progress)
        score = found.scores.get(self.of)
        if score is None or score.target not in ("ce", "kl"):
            raise UsageError(
                f"of={self.of!r} of remainder gives no score {self.of!r} that stands for a loss in nats: take "
                "first_order, component_slopes, hessian, ggn or another expansion"
            )
        nearby = replace(plan, workload=cut(plan, self.samples or None), parts=Parts(), memory={})
        predicted = expansion.measure(nearby, silent).scores[self.of]
        gaps = self._gaps(plan, predicted, score.target, progress)
        return replace(found, scores={**found.scores, self.of: replace(score, remainder=gaps)})

    def _gaps(self, plan: Plan, predicted: Score, measure: Measure, progress: Progress) -> list[list[float]]:
        keys = [(place, measure) for place in range(len(plan.targets))]
        gaps = []
        for piece, values in zip(
            sharded(plan, self.name, self, keys, self.rises, progress), predicted.value, strict=True
        ):
            means: list[float] = (piece["rise"].sum(1) / piece["count"].sum(1).clamp(min=1)).tolist()
            gaps.append([abs(mean - value) for mean, value in zip(means, values, strict=True)])
        return gaps

    def rises(self, plan: Plan, key: tuple[int, Measure]) -> Piece:
        """``rise`` and ``count`` [choices, N] of one target, each choice made alone."""
        place, measure = key
        target, batches = plan.targets[place], first_batches(plan, self.samples or None)
        rows = [changed_losses(plan, batches, [(target, k)], measure) for k in range(len(target.menu))]
        return {"rise": torch.stack([rise for rise, _ in rows]), "count": torch.stack([count for _, count in rows])}
