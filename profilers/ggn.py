"""The curvature of the divergence in the direction of each choice: one forward and one backward pass for all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from allocator.hygiene import ROWS
from allocator.progress import Progress
from profilers._basis import basis
from profilers._findings import Findings
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._shrink import shrunk
from profilers._sketch import Sketch
from profilers._trust import trust

LEAST = 0.1
"""Reliability of the interactions up to which they are left out: scaled by so little they change nothing."""


@dataclass(frozen=True, kw_only=True)
class Ggn(Profiler):
    """``ggn`` = ½ ΔᵀGΔ in nats per position: the quadratic model of KL(p_float ‖ p_choice), with the choice's real Δ.

    G is the Gauss–Newton matrix Jᵀ (diag p − p pᵀ) J summed over the positions of a sample (Martens 2020,
    arXiv 1412.1193, section 8); it is probed by Rademacher cotangents, see `profilers._sketch`. With u the projection
    of one sample in one pass, the score is ½ Σ_samples mean_passes u² / Σ positions, ≥ 0, with its standard error over
    samples, which contains the sketch's noise; where samples are few it is drawn towards a narrower estimate
    (`profilers._shrink`).

    The same projections give the interactions between layers, ½ Δ_aᵀGΔ_b, as a basis of the problem, scaled by how
    far the two halves of the data agree on them (`profilers._basis`), and left out where they hardly do.

    Costs S backward passes over the calibration data and, per layer, one inner product per sample and choice, instead
    of one forward pass per layer and choice. It under-predicts where the change is too large for a quadratic (2 and 3
    bits, low rank: 1.3 to 2 times) and ranks nearly as well as measured KL elsewhere. Where, is measured on a few
    choices on every run (`profilers._trust`): with e the relative error of the linear model, the score's remainder is
    score · (2e + e²), and the note ``untrusted`` names the choices with e > 0.25.

    Any attention kernel will do, since only first derivatives in reverse are taken. Where the rows of a layer cannot
    be told apart by sample (sequence first, shared position tables), samples are run one at a time.

    Attributes:
        sketches: S, backward passes per batch.
        seed: of the random signs.
        interactions: give the basis; without it the loss is the sum of the scores.
        diagonal: also give ``ggn_diag``, which keeps only the products of each weight with itself: see `GgnDiag`.
        cache_bytes: memory for the changes of weights, and gradients of layer outputs, that are kept between passes.
    """

    name: ClassVar[str] = "ggn"
    sketches: int = 2
    seed: int = 0
    interactions: bool = True
    diagonal: bool = False
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``ggn`` with its interactions, and ``ggn_diag`` if asked for."""
        sketch = Sketch(
            name="ggn", passes=self.sketches, seed=self.seed, diagonal=self.diagonal, cache_bytes=self.cache_bytes
        )
        found = sketch.run(plan, progress)
        score, share = shrunk(found)
        checked = trust(sketch, found, progress)
        gaps = [
            [value * (2 * e + e * e) for value, e in zip(values, errors, strict=True)]
            for values, errors in zip(score.value, checked.error, strict=True)
        ]
        scores = {"ggn": replace(score, remainder=gaps)}
        if self.diagonal:
            scores["ggn_diag"] = found.score(found.diagonal)
        notes: dict[str, Any] = {
            "full_share": share,
            "linearisation_error": checked.families,
            "untrusted": checked.untrusted(plan),
        }
        bases = []
        if self.interactions and len(plan.targets) > 1:
            found_basis, notes["interaction_reliability"] = basis(found, "ggn")
            notes[ROWS] = found.projections[0].shape[:2].numel()
            bases = [found_basis] if notes["interaction_reliability"] > LEAST else []
        return Findings(scores=scores, bases=bases, notes=notes)
