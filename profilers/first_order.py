"""The slope of the loss in the direction of each choice: on a trained network, noise with a standard error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allocator.progress import Progress
from profilers._calibration import Key, piece
from profilers._columns import enough, joined, means
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._labels import true
from profilers._passes import backward_passes, changes_of, pieces_of_samples, whole_menu
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._shards import Piece, sharded

SIGNIFICANT = 2.0
"""Standard errors that a slope has to be away from 0 to count as more than noise in the notes."""


@dataclass(frozen=True, kw_only=True)
class FirstOrder(Profiler):
    """``first_order`` = ⟨g, Δ⟩ in nats per position: the first-order change of the task's loss under each choice.

    g is the mean gradient of the loss over the calibration data and Δ the choice's own change of the weight; signed,
    target ``ce``. Its standard error is over samples, from the projections ⟨g_n, Δ⟩ of the single gradients.

    A network that was trained to the end has g near 0, so that this is mostly sampling noise: measured |mean| was
    half to one standard error at 256 samples for every bit-width, and adding it to a curvature made nearly every
    ranking worse. **It belongs in no loss by default**: list it after another profiler (``ggn,first_order``; the
    first one's first score is the loss), and give it weight only where the notes say that it stands out. They count
    the choices with |⟨g, Δ⟩| > 2 standard errors; about one in twenty does so by chance.

    Costs one forward and one backward pass over the calibration data and, per layer, one inner product per sample
    and choice: as much as `Ggn`. The oldest use as a saliency: Mozer and Smolensky 1989; Molchanov et al. 2017,
    arXiv 1611.06440.

    Attributes:
        cache_bytes: memory for the changes of weights that are kept between passes.
    """

    name: ClassVar[str] = "first_order"
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score, and in the notes how many choices stand out of their noise.

        Raises:
            UsageError: one sample only; a network that gradients cannot follow (`captured`, `rows_are_samples`);
                a loss that carries no gradient.
        """
        make_forms(plan, progress)
        pieces = list(sharded(plan, self.name, self, pieces_of_samples(plan), self.slopes, progress))
        counts = torch.cat([found["positions"] for found in pieces])
        enough(self.name, len(counts))
        score = means(
            joined(pieces, "slope", len(plan.targets)),
            [counts] * len(plan.targets),
            unit="nat",
            target="ce",
            per=plan.workload.task.per,
        )
        assert score.stderr is not None, "means gives it"
        cells = [
            (value, error)
            for values, errors in zip(score.value, score.stderr, strict=True)
            for value, error in zip(values, errors, strict=True)
            if value or error
        ]
        notes = {
            "choices_that_change_the_weight": len(cells),
            "beyond_2_stderr": sum(abs(value) > SIGNIFICANT * error for value, error in cells),
            "use": "noise on a trained network: not for a loss unless far more than 5 % of the choices are beyond",
        }
        return Findings(scores={"first_order": score}, notes=notes)

    def slopes(self, plan: Plan, key: Key) -> Piece:
        """On one piece: positions [N]; ⟨g_n, Δ⟩ [N, choices] of each target, g_n summed over a sample's positions."""
        batch = piece(plan, key)

        def cotangent(logits: Tensor, mask: Tensor | None) -> Tensor:
            return true(plan.workload.task, logits, batch)

        (backward,) = backward_passes(plan, batch, 1, cotangent, changes_of(plan, self.cache_bytes))
        slopes = {
            f"slope/{place}": whole_menu(backward, target, backward.projection(target))
            for place, target in enumerate(plan.targets)
        }
        return {"positions": backward.positions, **slopes}
